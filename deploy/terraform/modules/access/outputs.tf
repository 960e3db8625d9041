output "secrets_role" {
  value = aws_iam_role.this["secrets"].arn
}

output "volumes_role" {
  value = aws_iam_role.this["volumes"].arn
}

output "release_role" {
  value = var.repository == "" ? null : aws_iam_role.this["release"].arn
}

output "scan_role" {
  value = var.repository == "" ? null : aws_iam_role.this["scan"].arn
}

output "deploy_role" {
  value = var.repository == "" ? null : aws_iam_role.this["deploy"].arn
}
