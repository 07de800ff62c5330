variable "name" {
  description = "Prefix of all names."
  type        = string
  default     = "wetread"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}$", var.name))
    error_message = "The name is 2 to 21 lower-case letters, digits and hyphens, a letter first."
  }
}

variable "region" {
  description = "Region of everything."
  type        = string
  default     = "eu-central-1"
}

variable "zones" {
  description = "Availability zones used."
  type        = number
  default     = 3

  validation {
    condition     = var.zones >= 2 && var.zones <= 3
    error_message = "Two or three zones."
  }
}

variable "network" {
  description = "Network of the VPC, a /16."
  type        = string
  default     = "10.40.0.0/16"
}

variable "kubernetes_version" {
  description = "Version of the cluster."
  type        = string
  default     = "1.33"
}

variable "public_endpoint_networks" {
  description = "Networks that reach the cluster's API from outside; none: only from within the VPC."
  type        = list(string)
  default     = []

  validation {
    condition     = !contains(var.public_endpoint_networks, "0.0.0.0/0")
    error_message = "The API of the cluster is not opened to everybody."
  }
}

variable "namespace" {
  description = "Namespace of the release."
  type        = string
  default     = "wetread"
}

variable "service_account" {
  description = "Service account of the release."
  type        = string
  default     = "wetread"
}

variable "cpu_nodes" {
  description = "CPU nodes: instance type, fewest, most."
  type        = object({ type = string, min = number, max = number })
  default     = { type = "m7i.2xlarge", min = 2, max = 10 }
}

variable "gpu_nodes" {
  description = "GPU nodes, tainted: instance type, most. None run until something asks for them."
  type        = object({ type = string, max = number })
  default     = { type = "g6.xlarge", max = 4 }
}

variable "database" {
  description = "PostgreSQL: instance class, GB at first, GB at most."
  type        = object({ class = string, storage = number, storage_max = number })
  default     = { class = "db.r7g.large", storage = 100, storage_max = 1000 }
}

variable "deletion_protection" {
  description = "Keep the database and the access logs from being destroyed; images never are while the bucket holds any."
  type        = bool
  default     = true
}

variable "enable_express_hot_tier" {
  description = "A directory bucket (S3 Express One Zone) beside the bucket, for hot data."
  type        = bool
  default     = false
}

variable "enable_addons" {
  description = "EKS add-ons: network policies of the VPC CNI, DNS, kube-proxy, EBS driver."
  type        = bool
  default     = true
}

variable "image_registry" {
  description = "Registry of the image, such as an ECR; empty: the chart's default."
  type        = string
  default     = ""
}

variable "endpoint" {
  description = "URL of a server that stands in for AWS; for tests."
  type        = string
  default     = null
}
