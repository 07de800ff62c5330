locals {
  node_groups = {
    cpu = {
      ami = "AL2023_x86_64_STANDARD", types = [var.cpu_nodes.type], capacity = "ON_DEMAND"
      min = var.cpu_nodes.min, max = var.cpu_nodes.max, taint = null
    }
    gpu = {
      ami = "AL2023_x86_64_NVIDIA", types = [var.gpu_nodes.type], capacity = "ON_DEMAND"
      min = 0, max = var.gpu_nodes.max, taint = "nvidia.com/gpu"
    }
    gpu-batch = {
      ami = "AL2023_x86_64_NVIDIA", types = [var.gpu_nodes.type], capacity = "SPOT"
      min = 0, max = var.gpu_nodes.max, taint = "nvidia.com/gpu"
    }
  }
}

resource "aws_launch_template" "nodes" {
  for_each = local.node_groups
  name     = "${var.name}-${each.key}"

  # Pods cannot take the node's role: one hop ends at the node.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_size           = 100
      volume_type           = "gp3"
      encrypted             = true
      delete_on_termination = true
    }
  }
}

resource "aws_eks_node_group" "main" {
  for_each        = local.node_groups
  cluster_name    = aws_eks_cluster.main.name
  node_group_name = each.key
  node_role_arn   = aws_iam_role.nodes.arn
  subnet_ids      = aws_subnet.private[*].id
  ami_type        = each.value.ami
  instance_types  = each.value.types
  capacity_type   = each.value.capacity
  labels          = { "wetread.io/pool" = each.key }

  launch_template {
    id      = aws_launch_template.nodes[each.key].id
    version = aws_launch_template.nodes[each.key].latest_version
  }

  scaling_config {
    min_size     = each.value.min
    max_size     = each.value.max
    desired_size = each.value.min
  }

  update_config {
    max_unavailable = 1
  }

  dynamic "taint" {
    for_each = each.value.taint == null ? [] : [each.value.taint]
    content {
      key    = taint.value
      value  = "true"
      effect = "NO_SCHEDULE"
    }
  }

  lifecycle {
    ignore_changes = [scaling_config[0].desired_size]
  }

  depends_on = [aws_iam_role_policy_attachment.nodes]
}
