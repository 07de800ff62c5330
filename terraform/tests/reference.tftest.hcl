# Without AWS: every resource is a mock. What AWS would say is in the defaults below.
mock_provider "aws" {
  mock_data "aws_availability_zones" {
    defaults = {
      names    = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
      zone_ids = ["euc1-az2", "euc1-az3", "euc1-az1"]
    }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\":\"2012-10-17\",\"Statement\":[]}" }
  }
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-central-1:111122223333:key/0" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::111122223333:role/mocked" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-central-1:111122223333:log-group:mocked" }
  }
  mock_resource "aws_iam_openid_connect_provider" {
    defaults = {
      arn = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/X"
      url = "https://oidc.eks.eu-central-1.amazonaws.com/id/X"
    }
  }
  mock_resource "aws_s3_bucket" {
    defaults = { id = "wetread-111122223333", arn = "arn:aws:s3:::wetread-111122223333" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0", latest_version = 1 }
  }
  mock_resource "aws_eks_cluster" {
    defaults = {
      identity = [{ oidc = [{ issuer = "https://oidc.eks.eu-central-1.amazonaws.com/id/X" }] }]
    }
  }
  mock_resource "aws_db_instance" {
    defaults = {
      address            = "wetread.x.eu-central-1.rds.amazonaws.com"
      master_user_secret = [{ secret_arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:x" }]
    }
  }
}

run "everything" {
  assert {
    condition     = alltrue([for bucket in aws_s3_bucket_public_access_block.all : bucket.block_public_acls && bucket.block_public_policy && bucket.ignore_public_acls && bucket.restrict_public_buckets])
    error_message = "A bucket may become public."
  }
  assert {
    condition     = toset(keys(aws_s3_bucket_public_access_block.all)) == toset(["images", "logs"])
    error_message = "A bucket has no public access block."
  }
  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.images.rule).apply_server_side_encryption_by_default).sse_algorithm == "aws:kms"
    error_message = "Images are not encrypted by our key."
  }
  assert {
    condition     = toset([for step in aws_s3_bucket_lifecycle_configuration.images.rule[0].transition : "${step.days} ${step.storage_class}"]) == toset(["30 INTELLIGENT_TIERING", "365 GLACIER_IR"])
    error_message = "The tiers are others."
  }
  assert {
    condition     = aws_kms_key.main.enable_key_rotation && aws_eks_cluster.main.encryption_config[0].resources == toset(["secrets"])
    error_message = "Secrets of the cluster are not encrypted, or the key does not rotate."
  }
  assert {
    condition     = aws_eks_cluster.main.vpc_config[0].endpoint_private_access && !aws_eks_cluster.main.vpc_config[0].endpoint_public_access
    error_message = "The API of the cluster is public by default."
  }
  assert {
    condition     = length(aws_eks_cluster.main.enabled_cluster_log_types) == 5
    error_message = "The control plane does not log everything."
  }
  assert {
    condition     = alltrue([for name in ["gpu", "gpu-batch"] : [for taint in aws_eks_node_group.main[name].taint : "${taint.key}=${taint.value}:${taint.effect}"] == ["nvidia.com/gpu=true:NO_SCHEDULE"]])
    error_message = "A GPU pool takes pods that do not ask for a GPU."
  }
  assert {
    condition     = alltrue([for name in ["gpu", "gpu-batch"] : aws_eks_node_group.main[name].scaling_config[0].min_size == 0]) && aws_eks_node_group.main["gpu-batch"].capacity_type == "SPOT"
    error_message = "GPU nodes run without work."
  }
  assert {
    condition     = length(aws_eks_node_group.main["cpu"].taint) == 0 && aws_eks_node_group.main["cpu"].labels["wetread.io/pool"] == "cpu"
    error_message = "The CPU pool is not what the chart selects."
  }
  assert {
    condition     = alltrue([for template in aws_launch_template.nodes : template.metadata_options[0].http_tokens == "required" && template.metadata_options[0].http_put_response_hop_limit == 1])
    error_message = "Pods can take the role of a node."
  }
  assert {
    condition     = aws_db_instance.main.multi_az && aws_db_instance.main.storage_encrypted && aws_db_instance.main.deletion_protection && !aws_db_instance.main.publicly_accessible && aws_db_instance.main.manage_master_user_password && aws_db_instance.main.backup_retention_period >= 7
    error_message = "The database can be lost, read or reached."
  }
  assert {
    condition     = contains([for each in aws_db_parameter_group.main.parameter : "${each.name}=${each.value}"], "rds.force_ssl=1")
    error_message = "The database takes connections without TLS."
  }
  assert {
    condition     = [for rule in aws_vpc_security_group_ingress_rule.database : "${rule.cidr_ipv4} ${rule.from_port}-${rule.to_port}"] == [for subnet in aws_subnet.private : "${subnet.cidr_block} 5432-5432"]
    error_message = "Others than the nodes and pods reach the database."
  }
  assert {
    condition     = length(aws_default_security_group.closed.ingress) == 0 && length(aws_default_security_group.closed.egress) == 0
    error_message = "The default security group is open."
  }
  assert {
    condition     = length(aws_nat_gateway.main) == 3 && length(aws_subnet.private) == 3 && aws_vpc_endpoint.s3.vpc_endpoint_type == "Gateway"
    error_message = "A zone has no way out of its own, or images go to S3 through NAT."
  }
  assert {
    condition     = length(aws_s3_directory_bucket.hot) == 0
    error_message = "The express tier is on by default."
  }
}

run "roles_are_one_service_accounts" {
  assert {
    condition     = local.accounts.services == "system:serviceaccount:wetread:wetread" && local.issuer == "oidc.eks.eu-central-1.amazonaws.com/id/X"
    error_message = "The role of the services is somebody else's."
  }
  assert {
    condition     = alltrue([for document in data.aws_iam_policy_document.irsa : toset(flatten([for each in document.statement[0].condition : [for value in each.values : "${each.test} ${trimprefix(each.variable, local.issuer)}"]])) == toset(["StringEquals :sub", "StringEquals :aud"])])
    error_message = "A trust does not name both account and audience."
  }
  assert {
    condition     = toset(flatten([for each in data.aws_iam_policy_document.services.statement : [for action in each.actions : action if startswith(action, "s3:")]])) == toset(["s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"])
    error_message = "Services may do more, or less, with the bucket than they need."
  }
}

run "outputs_are_values_of_the_chart" {
  assert {
    condition     = output.helm_values.profile == "cluster" && output.helm_values.objectStore.url == "s3://wetread-111122223333/archive"
    error_message = "The object store of the values is another."
  }
  assert {
    condition     = startswith(output.helm_values.serviceAccount.annotations["eks.amazonaws.com/role-arn"], "arn:aws:iam::")
    error_message = "The service account has no role."
  }
}

run "two_zones_and_the_express_tier" {
  command = plan
  variables {
    zones                   = 2
    enable_express_hot_tier = true
    enable_addons           = false
  }
  assert {
    condition     = length(aws_subnet.private) == 2 && length(aws_s3_directory_bucket.hot) == 1 && endswith(aws_s3_directory_bucket.hot[0].bucket, "--x-s3") && length(aws_eks_addon.main) == 0
    error_message = "Switches do not switch."
  }
}

run "the_api_is_not_opened_to_everybody" {
  command = plan
  variables {
    public_endpoint_networks = ["0.0.0.0/0"]
  }
  expect_failures = [var.public_endpoint_networks]
}

run "some_networks_reach_the_api" {
  command = plan
  variables {
    public_endpoint_networks = ["192.0.2.0/24"]
  }
  assert {
    condition     = aws_eks_cluster.main.vpc_config[0].endpoint_public_access && aws_eks_cluster.main.vpc_config[0].public_access_cidrs == toset(["192.0.2.0/24"])
    error_message = "The named networks do not reach the API."
  }
}
