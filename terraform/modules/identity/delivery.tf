################################################################################
# Delivery: what GitHub's workflows may do, each role for exactly one environment of the repository.
# GitHub proves which one by a token (OIDC); the account knows GitHub as a provider already.
################################################################################

locals {
  arns    = "${var.region}:${data.aws_caller_identity.current.account_id}"
  cluster = "arn:aws:eks:${local.arns}:cluster/${var.cluster_name}"

  read_state = [
    { Sid = "State", Effect = "Allow", Action = ["s3:GetObject"], Resource = ["arn:aws:s3:::${var.state.bucket}/${var.state.key}"] },
    { Sid = "StateList", Effect = "Allow", Action = ["s3:ListBucket"], Resource = ["arn:aws:s3:::${var.state.bucket}"] },
  ]

  # Environment of the repository => statements of its role.
  deliveries = { for name, statements in local.all_deliveries : name => statements if var.github_repository != "" }

  all_deliveries = {
    "${var.environment}-images" = [
      { Sid = "LogIn", Effect = "Allow", Action = ["ecr:GetAuthorizationToken"], Resource = ["*"] },
      {
        Sid    = "Push"
        Effect = "Allow"
        Action = [
          "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:CompleteLayerUpload", "ecr:DescribeImages",
          "ecr:GetDownloadUrlForLayer", "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart",
        ]
        Resource = ["arn:aws:ecr:${local.arns}:repository/${var.cluster_name}/*"]
      },
    ]
    (var.environment) = concat(local.read_state, [
      { Sid = "Cluster", Effect = "Allow", Action = ["eks:DescribeCluster"], Resource = [local.cluster] },
      { Sid = "LogIn", Effect = "Allow", Action = ["ecr:GetAuthorizationToken"], Resource = ["*"] },
      {
        Sid      = "VerifyImages"
        Effect   = "Allow"
        Action   = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:DescribeImages"]
        Resource = ["arn:aws:ecr:${local.arns}:repository/${var.cluster_name}/*"]
      },
      { Sid = "PublicKey", Effect = "Allow", Action = ["secretsmanager:GetSecretValue"], Resource = [var.verifying_key_arn] },
      {
        Sid       = "KeyOfTheSecrets"
        Effect    = "Allow"
        Action    = ["kms:Decrypt"]
        Resource  = [var.kms_key_arn]
        Condition = { StringEquals = { "kms:ViaService" = "secretsmanager.${var.region}.amazonaws.com", "kms:EncryptionContext:SecretARN" = var.verifying_key_arn } }
      },
    ])
    "${var.environment}-plan" = local.read_state
  }
}

resource "aws_iam_role" "delivery" {
  #checkov:skip=CKV_AWS_393:The check reads the empty default of github_repository; its validation and a test keep the subject exact.
  for_each = local.deliveries

  name                 = "${var.cluster_name}-github-${each.key}"
  max_session_duration = 3 * 60 * 60 # seconds: a first delivery trains a model

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Federated = "arn:aws:iam::${data.aws_caller_identity.current.account_id}:oidc-provider/token.actions.githubusercontent.com" }
      Action    = "sts:AssumeRoleWithWebIdentity"
      Condition = {
        StringEquals = {
          "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com"
          "token.actions.githubusercontent.com:sub" = "repo:${var.github_repository}:environment:${each.key}"
        }
      }
    }]
  })
}

resource "aws_iam_role_policy" "delivery" {
  for_each = local.deliveries

  name   = "delivery"
  role   = aws_iam_role.delivery[each.key].name
  policy = jsonencode({ Version = "2012-10-17", Statement = each.value })
}

# The nightly comparison reads what there is; secrets' values are not part of it.
resource "aws_iam_role_policy_attachment" "plan" {
  for_each = toset([for name in keys(local.deliveries) : name if endswith(name, "-plan")])

  role       = aws_iam_role.delivery[each.key].name
  policy_arn = "arn:aws:iam::aws:policy/ReadOnlyAccess"
}

# It may read buckets by that policy; what is in them is nobody's business there.
resource "aws_iam_role_policy" "plan_reads_no_data" {
  for_each = aws_iam_role_policy_attachment.plan

  name = "no-data"
  role = aws_iam_role.delivery[each.key].name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Deny"
      Action   = ["s3:GetObject", "secretsmanager:GetSecretValue"]
      Resource = [for arn in concat(values(var.bucket_arns), ["arn:aws:secretsmanager:${local.arns}:secret:"]) : "${arn}*"]
    }]
  })
}

################################################################################
# Into the cluster
################################################################################

resource "aws_eks_access_entry" "delivery" {
  for_each = var.github_repository == "" ? toset([]) : toset([var.environment])

  cluster_name  = var.cluster_name
  principal_arn = aws_iam_role.delivery[each.key].arn
}

# Cluster-wide: the release has policies and classes that belong to the whole cluster.
resource "aws_eks_access_policy_association" "delivery" {
  for_each = aws_eks_access_entry.delivery

  cluster_name  = var.cluster_name
  principal_arn = each.value.principal_arn
  policy_arn    = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"

  access_scope {
    type = "cluster"
  }
}
