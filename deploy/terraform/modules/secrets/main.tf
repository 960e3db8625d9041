# The secrets of the pods, without values: whoever deploys sets these (docs/terraform.md), so that no state has them.

resource "aws_secretsmanager_secret" "this" {
  for_each = toset(var.secrets)

  name       = "${var.name}/${each.value}"
  kms_key_id = var.key
}
