variable "region" {
  description = "Region of AWS."
  type        = string
}

variable "name" {
  description = "Name of the installation, with which the names of all resources begin."
  type        = string
  default     = "pmp"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,15}$", var.name))
    error_message = "The name is 2 to 16 lowercase letters, digits and hyphens, the first a letter."
  }
}

variable "environment" {
  description = "Tag of all resources, such as production."
  type        = string
  default     = "production"
}

variable "network" {
  description = "Addresses of the VPC, a block of 16 bits; subnets are parts of it."
  type        = string
  default     = "10.20.0.0/16"
}

variable "zones" {
  description = "Availability zones to use. The database and the log need two."
  type        = number
  default     = 2

  validation {
    condition     = var.zones >= 2 && var.zones <= 3
    error_message = "Two or three zones."
  }
}

variable "kubernetes_version" {
  description = "Version of Kubernetes."
  type        = string
  default     = "1.35"
}

variable "administrators" {
  description = "Blocks of addresses from which the cluster's API may be called; none: only from the VPC."
  type        = list(string)
  default     = []
}

variable "node_type" {
  description = "Instance type of the nodes."
  type        = string
  default     = "m6i.large"
}

variable "nodes" {
  description = "Least and largest number of nodes."
  type        = object({ least = number, most = number })
  default     = { least = 2, most = 6 }
}

variable "database_class" {
  description = "Instance class of MySQL."
  type        = string
  default     = "db.t3.medium"
}

variable "database_storage" {
  description = "Storage of MySQL in GiB, and the size up to which it grows by itself."
  type        = object({ initial = number, most = number })
  default     = { initial = 100, most = 1000 }
}

variable "database_username" {
  description = "Administrator of MySQL. Services have accounts of their own."
  type        = string
  default     = "administrator"
}

variable "database_password" {
  description = "Password of the administrator of MySQL: TF_VAR_database_password."
  type        = string
  sensitive   = true
}

variable "database_replicated" {
  description = "Keep a copy of MySQL in another zone, which takes over when the first fails."
  type        = bool
  default     = true
}

variable "log_type" {
  description = "Node type of Redis, which decides how much the log may hold: docs/terraform.md."
  type        = string
  default     = "cache.t3.medium"
}

variable "log_password" {
  description = "Password of Redis, 16 to 128 characters: TF_VAR_log_password."
  type        = string
  sensitive   = true

  validation {
    condition     = can(regex("^[A-Za-z0-9]{16,128}$", var.log_password))
    error_message = "16 to 128 letters and digits."
  }
}

variable "backup_days" {
  description = "Days for which backups are kept. An erased person is in the backups that were made before: days, not months."
  type        = number
  default     = 7

  validation {
    condition     = var.backup_days >= 1 && var.backup_days <= 35
    error_message = "1 to 35 days."
  }
}

variable "repository" {
  description = "GitHub repository whose releases are pushed and deployed, as OWNER/NAME; none: no roles for it."
  type        = string
  default     = ""
}
