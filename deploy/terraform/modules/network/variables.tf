variable "name" {
  type = string
}

variable "block" {
  type = string
}

variable "zones" {
  type = number
}
