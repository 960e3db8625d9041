output "address" {
  value = aws_cloudformation_stack.log.outputs["Address"]
}
