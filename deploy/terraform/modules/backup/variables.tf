variable "name" {
  type = string
}

variable "database" {
  description = "ARN of the database."
  type        = string
}

variable "days" {
  type = number
}

variable "key" {
  type = string
}
