output "name" {
  value = aws_eks_node_group.this.cluster_name
}

output "arn" {
  value = aws_eks_cluster.this.arn
}

output "issuer" {
  description = "URL of what issues the tokens of service accounts."
  value       = aws_eks_cluster.this.identity[0].oidc[0].issuer
}

output "security_group" {
  description = "Group of the nodes, and so of the pods."
  value       = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
}
