output "cluster" {
  description = "Name of the cluster: aws eks update-kubeconfig --name."
  value       = module.cluster.name
}

output "database_address" {
  description = "Host of MySQL, for PMP_DATABASE_URL of each service."
  value       = module.database.address
}

output "log_address" {
  description = "Host of Redis, for PMP_REDIS_URL: rediss://:PASSWORD@HOST:6379."
  value       = module.log.address
}

output "registry" {
  description = "Where images are pushed to: the variable REGISTRY of the workflows."
  value       = module.registry.address
}

output "secrets" {
  description = "Names of the secrets, which have to be given values."
  value       = module.secrets.names
}

output "release_role" {
  description = "Role that pushes images: the variable AWS_RELEASE_ROLE of the workflows."
  value       = module.access.release_role
}

output "scan_role" {
  description = "Role that reads images: the variable AWS_SCAN_ROLE of the workflows."
  value       = module.access.scan_role
}

output "deploy_role" {
  description = "Role that deploys: the variable AWS_DEPLOY_ROLE of the workflows."
  value       = module.access.deploy_role
}

output "backups" {
  description = "Vault of the backups."
  value       = module.backup.vault
}

output "component" {
  description = "What production's overlay needs of AWS, as a component of kustomize: deploy/components/aws/kustomization.yaml."
  value = templatefile("${path.module}/component.yaml.tftpl", {
    region = var.region
    prefix = "${var.name}/"
    role   = module.access.secrets_role
  })
}
