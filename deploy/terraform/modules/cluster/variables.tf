variable "name" {
  type = string
}

variable "kubernetes_version" {
  type = string
}

variable "subnets" {
  type = list(string)
}

variable "administrators" {
  type = list(string)
}

variable "node_type" {
  type = string
}

variable "nodes" {
  type = object({ least = number, most = number })
}

variable "key" {
  type = string
}
