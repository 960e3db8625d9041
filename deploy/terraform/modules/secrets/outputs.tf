output "arns" {
  value = [for secret in aws_secretsmanager_secret.this : secret.arn]
}

output "names" {
  value = [for secret in aws_secretsmanager_secret.this : secret.name]
}
