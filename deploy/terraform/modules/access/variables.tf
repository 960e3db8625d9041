variable "name" {
  type = string
}

variable "issuer" {
  description = "URL of what issues the tokens of the cluster's service accounts."
  type        = string
}

variable "cluster" {
  description = "ARN of the cluster."
  type        = string
}

variable "secrets" {
  description = "ARNs of the secrets of the pods."
  type        = list(string)
}

variable "repositories" {
  description = "ARNs of the repositories of images."
  type        = list(string)
}

variable "key" {
  type = string
}

variable "repository" {
  description = "GitHub repository, as OWNER/NAME; none: no roles for it."
  type        = string
}
