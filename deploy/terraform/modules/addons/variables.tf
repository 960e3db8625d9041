variable "name" {
  type = string
}

variable "cluster" {
  type = string
}

variable "volumes_role" {
  type = string
}
