################################################################################
# Identity: what each service account may do in AWS. No key is kept anywhere; EKS Pod Identity hands
# short-lived credentials to the pods of one account in one namespace, and to nobody else.
################################################################################

data "aws_caller_identity" "current" {}

locals {
  # Account of the platform => what it may do with the objects under which prefixes of which bucket.
  # Roles that are not listed (gateway, operator, triton, trigger, metrics) talk to no AWS service.
  platform = {
    registry = {
      artifacts = { write = ["registry/"] }
    }
    pipeline = {
      offline = { read = ["features/", "predictions/"], write = ["training/"] }
    }
    features = {
      offline = { write = ["features/"] }
    }
    archiver = {
      offline = { write = ["predictions/"] }
    }
    monitor = {
      offline = { read = ["features/", "predictions/"], write = ["monitoring/"] }
    }
  }

  grants = {
    for role, buckets in local.platform : role => [
      for bucket, access in buckets : {
        bucket = var.bucket_arns[bucket]
        write  = try(access.write, [])
        all    = concat(try(access.read, []), try(access.write, []))
      }
    ]
  }

  accounts = merge(
    { for role in keys(local.platform) : role => { namespace = var.namespace, name = "mlplatform-${role}" } },
    {
      external-secrets   = { namespace = "external-secrets", name = "external-secrets" }
      cluster-autoscaler = { namespace = "kube-system", name = "cluster-autoscaler" }
    },
  )
}

resource "aws_iam_role" "this" {
  for_each = local.accounts

  name = "${var.cluster_name}-${each.key}"

  # The conditions are checked against what EKS says about the pod, which the pod cannot change.
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Condition = {
        StringEquals = {
          "aws:SourceAccount"                         = data.aws_caller_identity.current.account_id
          "aws:RequestTag/eks-cluster-name"           = var.cluster_name
          "aws:RequestTag/kubernetes-namespace"       = each.value.namespace
          "aws:RequestTag/kubernetes-service-account" = each.value.name
        }
      }
    }]
  })
}

resource "aws_eks_pod_identity_association" "this" {
  for_each = local.accounts

  cluster_name    = var.cluster_name
  namespace       = each.value.namespace
  service_account = each.value.name
  role_arn        = aws_iam_role.this[each.key].arn

  depends_on = [aws_iam_role_policy.platform, aws_iam_role_policy.external_secrets, aws_iam_role_policy.autoscaler]
}

################################################################################
# The platform's own accounts: objects under their prefixes, and nothing else
################################################################################

resource "aws_iam_role_policy" "platform" {
  for_each = local.grants

  name = "buckets"
  role = aws_iam_role.this[each.key].name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [for grant in each.value : {
        Sid       = "List"
        Effect    = "Allow"
        Action    = ["s3:ListBucket"]
        Resource  = [grant.bucket]
        Condition = { StringLike = { "s3:prefix" = [for prefix in grant.all : "${prefix}*"] } }
      }],
      [for grant in each.value : {
        Sid      = "Read"
        Effect   = "Allow"
        Action   = ["s3:GetObject"]
        Resource = [for prefix in grant.all : "${grant.bucket}/${prefix}*"]
      }],
      [for grant in each.value : {
        Sid      = "Write"
        Effect   = "Allow"
        Action   = ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
        Resource = [for prefix in grant.write : "${grant.bucket}/${prefix}*"]
      }],
      [{
        Sid       = "KeyOfTheBuckets"
        Effect    = "Allow"
        Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource  = [var.kms_key_arn]
        Condition = { StringEquals = { "kms:ViaService" = "s3.${var.region}.amazonaws.com" } }
      }],
    )
  })
}

################################################################################
# Controllers beside the platform
################################################################################

resource "aws_iam_role_policy" "external_secrets" {
  name = "secrets"
  role = aws_iam_role.this["external-secrets"].name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "TheseEntriesOnly"
        Effect   = "Allow"
        Action   = ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"]
        Resource = var.secret_arns
      },
      {
        Sid       = "KeyOfTheSecrets"
        Effect    = "Allow"
        Action    = ["kms:Decrypt"]
        Resource  = [var.kms_key_arn]
        Condition = { StringEquals = { "kms:ViaService" = "secretsmanager.${var.region}.amazonaws.com" } }
      },
    ]
  })
}

resource "aws_iam_role_policy" "autoscaler" {
  #checkov:skip=CKV_AWS_355:The describing actions know no resources; those that change something are bound to this cluster's groups.
  name = "node-groups"
  role = aws_iam_role.this["cluster-autoscaler"].name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "Look"
        Effect = "Allow"
        Action = [
          "autoscaling:DescribeAutoScalingGroups",
          "autoscaling:DescribeAutoScalingInstances",
          "autoscaling:DescribeLaunchConfigurations",
          "autoscaling:DescribeScalingActivities",
          "autoscaling:DescribeTags",
          "ec2:DescribeImages",
          "ec2:DescribeInstanceTypes",
          "ec2:DescribeLaunchTemplateVersions",
          "ec2:GetInstanceTypesFromInstanceRequirements",
        ]
        Resource = ["*"]
      },
      {
        Sid      = "LookAtGroups" # labels and taints of a group that has no node
        Effect   = "Allow"
        Action   = ["eks:DescribeNodegroup"]
        Resource = ["arn:aws:eks:${var.region}:${data.aws_caller_identity.current.account_id}:nodegroup/${var.cluster_name}/*"]
      },
      {
        Sid       = "Resize"
        Effect    = "Allow"
        Action    = ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"]
        Resource  = ["arn:aws:autoscaling:${var.region}:${data.aws_caller_identity.current.account_id}:autoScalingGroup:*"]
        Condition = { StringEquals = { "aws:ResourceTag/eks:cluster-name" = var.cluster_name } }
      },
    ]
  })
}
