################################################################################
# The platform's Secrets: entries only. `make infra-apply` puts values into those that have none, and
# External Secrets brings them into the cluster. Terraform never sees one, so its state holds none.
################################################################################

resource "aws_secretsmanager_secret" "this" {
  #checkov:skip=CKV2_AWS_57:Values are made by `make infra-apply`, not by a rotation function; docs/cloud.md tells how to change one.
  for_each = var.secret_names

  name                    = "${var.name}/${each.key}"
  description             = "Becomes the Secret ${each.key} in the cluster"
  kms_key_id              = aws_kms_key.this.arn
  recovery_window_in_days = var.expendable ? 0 : 30
}
