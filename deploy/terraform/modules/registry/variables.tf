variable "name" {
  type = string
}

variable "images" {
  type = list(string)
}

variable "key" {
  type = string
}
