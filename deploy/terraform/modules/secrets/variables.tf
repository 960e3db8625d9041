variable "name" {
  type = string
}

variable "secrets" {
  type = list(string)
}

variable "key" {
  type = string
}
