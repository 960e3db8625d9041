output "address" {
  description = "What stands before the name of an image."
  value       = trimsuffix(aws_ecr_repository.this[var.images[0]].repository_url, "/${var.images[0]}")
}

output "arns" {
  value = [for repository in aws_ecr_repository.this : repository.arn]
}
