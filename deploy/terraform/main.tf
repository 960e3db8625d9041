locals {
  tags = {
    Application = "pmp-mesh"
    Environment = var.environment
  }
  # Every service of the mesh: those that are deployed.
  services = sort([for path in fileset("${path.module}/../services", "*/kustomization.yaml") : dirname(path)])
}

# One key encrypts whatever is stored.
resource "aws_kms_key" "storage" {
  description             = "${var.name}: databases, log, images, secrets and backups"
  enable_key_rotation     = true
  deletion_window_in_days = 30
}

resource "aws_kms_alias" "storage" {
  name          = "alias/${var.name}"
  target_key_id = aws_kms_key.storage.key_id
}

module "network" {
  source = "./modules/network"

  name  = var.name
  block = var.network
  zones = var.zones
}

module "cluster" {
  source = "./modules/cluster"

  name               = var.name
  kubernetes_version = var.kubernetes_version
  subnets            = module.network.private_subnets
  administrators     = var.administrators
  node_type          = var.node_type
  nodes              = var.nodes
  key                = aws_kms_key.storage.arn
}

module "database" {
  source = "./modules/database"

  name           = var.name
  network        = module.network.id
  subnets        = module.network.private_subnets
  client         = module.cluster.security_group
  instance_class = var.database_class
  storage        = var.database_storage
  username       = var.database_username
  password       = var.database_password
  replicated     = var.database_replicated
  backup_days    = var.backup_days
  key            = aws_kms_key.storage.arn
}

module "log" {
  source = "./modules/log"

  name        = var.name
  network     = module.network.id
  subnets     = module.network.private_subnets
  client      = module.cluster.security_group
  node_type   = var.log_type
  password    = var.log_password
  backup_days = var.backup_days
  key         = aws_kms_key.storage.arn
}

module "registry" {
  source = "./modules/registry"

  name   = var.name
  images = ["mesh", "gateway"]
  key    = aws_kms_key.storage.arn
}

module "secrets" {
  source = "./modules/secrets"

  name    = var.name
  secrets = concat(["mesh-secrets", "gateway-secrets"], [for service in local.services : "${service}-secrets"])
  key     = aws_kms_key.storage.arn
}

module "access" {
  source = "./modules/access"

  name         = var.name
  issuer       = module.cluster.issuer
  cluster      = module.cluster.arn
  secrets      = module.secrets.arns
  repositories = module.registry.arns
  key          = aws_kms_key.storage.arn
  repository   = var.repository
}

module "addons" {
  source = "./modules/addons"

  name         = var.name
  cluster      = module.cluster.name
  volumes_role = module.access.volumes_role
}

module "backup" {
  source = "./modules/backup"

  name     = var.name
  database = module.database.arn
  days     = var.backup_days
  key      = aws_kms_key.storage.arn
}
