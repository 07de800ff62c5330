output "helm_values" {
  description = "Values of the chart: terraform output -json helm_values > values.json"
  value = {
    profile        = "cluster"
    image          = { registry = var.image_registry }
    serviceAccount = { name = var.service_account, annotations = { "eks.amazonaws.com/role-arn" = aws_iam_role.services.arn } }
    database       = { existingSecret = "wetread-database" }
    objectStore    = { url = "s3://${aws_s3_bucket.images.id}/archive", region = var.region }
    networkPolicy  = { databaseNetworks = aws_subnet.private[*].cidr_block }
    services = {
      gateway  = { replicas = 2 }
      worklist = { replicas = 2 }
      worker   = { replicas = 2, pod = { nodeSelector = { "wetread.io/pool" = "cpu" } } }
    }
  }
}

output "database" {
  description = "Where the database is, and the secret that holds its owner's password; both make the Secret wetread-database."
  value = {
    host   = aws_db_instance.main.address
    name   = aws_db_instance.main.db_name
    secret = aws_db_instance.main.master_user_secret[0].secret_arn
  }
}

output "cluster" {
  description = "Name of the cluster: aws eks update-kubeconfig --name NAME"
  value       = aws_eks_cluster.main.name
}
