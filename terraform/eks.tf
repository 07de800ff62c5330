resource "aws_cloudwatch_log_group" "cluster" {
  name              = "/aws/eks/${var.name}/cluster"
  retention_in_days = 365
  kms_key_id        = aws_kms_key.main.arn
}

resource "aws_eks_cluster" "main" {
  name                      = var.name
  version                   = var.kubernetes_version
  role_arn                  = aws_iam_role.cluster.arn
  enabled_cluster_log_types = ["api", "audit", "authenticator", "controllerManager", "scheduler"]

  vpc_config {
    subnet_ids              = aws_subnet.private[*].id
    endpoint_private_access = true
    endpoint_public_access  = length(var.public_endpoint_networks) > 0
    public_access_cidrs     = length(var.public_endpoint_networks) > 0 ? var.public_endpoint_networks : null
  }

  encryption_config {
    resources = ["secrets"]
    provider {
      key_arn = aws_kms_key.main.arn
    }
  }

  depends_on = [aws_cloudwatch_log_group.cluster, aws_iam_role_policy_attachment.cluster]
}

resource "aws_iam_openid_connect_provider" "cluster" {
  url            = aws_eks_cluster.main.identity[0].oidc[0].issuer
  client_id_list = ["sts.amazonaws.com"]
}

resource "aws_eks_addon" "main" {
  for_each     = var.enable_addons ? toset(["vpc-cni", "coredns", "kube-proxy", "aws-ebs-csi-driver"]) : []
  cluster_name = aws_eks_cluster.main.name
  addon_name   = each.value

  # The chart's NetworkPolicies mean nothing until the CNI enforces them.
  configuration_values     = each.value == "vpc-cni" ? jsonencode({ enableNetworkPolicy = "true" }) : null
  service_account_role_arn = each.value == "aws-ebs-csi-driver" ? aws_iam_role.ebs.arn : null
  depends_on               = [aws_eks_node_group.main]
}
