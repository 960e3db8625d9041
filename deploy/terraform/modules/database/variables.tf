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

variable "instance_class" {
  type = string
}

variable "storage" {
  type = object({ initial = number, most = number })
}

variable "username" {
  type = string
}

variable "password" {
  type      = string
  sensitive = true
}

variable "replicated" {
  type = bool
}

variable "backup_days" {
  type = number
}

variable "key" {
  type = string
}
