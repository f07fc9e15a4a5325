################################################################################
# Add-ons that the platform builds on, in versions that EKS chooses for the cluster's.
################################################################################

locals {
  # Before there are nodes: a node without them never gets ready, and pods without the agent no rights.
  addons_before_nodes = {
    vpc-cni                = { enableNetworkPolicy = "true" } # the chart's policies are enforced
    kube-proxy             = {}
    eks-pod-identity-agent = {}
  }

  drivers = {
    aws-ebs-csi-driver = {
      account = "ebs-csi-controller-sa"
      policy  = "arn:aws:iam::aws:policy/service-role/AmazonEBSCSIDriverPolicy"
    }
    aws-efs-csi-driver = {
      account = "efs-csi-controller-sa"
      policy  = "arn:aws:iam::aws:policy/service-role/AmazonEFSCSIDriverPolicy"
    }
  }
}

resource "aws_eks_addon" "before_nodes" {
  for_each = local.addons_before_nodes

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  configuration_values        = length(each.value) > 0 ? jsonencode(each.value) : null
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"
}

# Their pods need nodes to become active.
resource "aws_eks_addon" "after_nodes" {
  for_each = toset(["coredns", "metrics-server"])

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  depends_on = [aws_eks_node_group.this]
}

################################################################################
# Storage drivers, each with rights of its own
################################################################################

resource "aws_iam_role" "driver" {
  for_each = local.drivers

  name = "${var.name}-${each.key}"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "driver" {
  for_each = local.drivers

  role       = aws_iam_role.driver[each.key].name
  policy_arn = each.value.policy
}

resource "aws_eks_addon" "driver" {
  for_each = local.drivers

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  pod_identity_association {
    role_arn        = aws_iam_role.driver[each.key].arn
    service_account = each.value.account
  }

  depends_on = [
    aws_eks_addon.before_nodes,
    aws_eks_node_group.this,
    aws_iam_role_policy_attachment.driver,
  ]
}
