################################################################################
# Container images
################################################################################

resource "aws_ecr_repository" "this" {
  for_each = var.image_roles

  name                 = "${var.name}/mlplatform-${each.key}"
  image_tag_mutability = "IMMUTABLE" # a tag is written once; deployments name digests anyway
  force_delete         = var.expendable

  image_scanning_configuration {
    scan_on_push = true
  }
  encryption_configuration {
    encryption_type = "KMS"
    kms_key         = aws_kms_key.this.arn
  }
}

resource "aws_ecr_lifecycle_policy" "this" {
  for_each = var.image_roles

  repository = aws_ecr_repository.this[each.key].name
  policy = jsonencode({
    rules = [{
      rulePriority = 1
      description  = "Untagged images go after two weeks: a rollback reaches no further"
      selection    = { tagStatus = "untagged", countType = "sinceImagePushed", countUnit = "days", countNumber = 14 }
      action       = { type = "expire" }
    }]
  })
}
