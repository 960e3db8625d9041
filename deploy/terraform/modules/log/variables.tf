variable "name" {
  type = string
}

variable "network" {
  type = string
}

variable "subnets" {
  type = list(string)
}

variable "client" {
  description = "Security group that may connect."
  type        = string
}

variable "node_type" {
  type = string
}

variable "password" {
  type      = string
  sensitive = true
}

variable "backup_days" {
  type = number
}

variable "key" {
  type = string
}
