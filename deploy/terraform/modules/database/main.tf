# One MySQL 8 with a database per service: 8.4, since RDS bills extended support for 8.0. deploy/components/accounts creates the accounts, the services their databases.

resource "aws_security_group" "database" {
  name        = "${var.name}-database"
  description = "MySQL, for the pods of the cluster"
  vpc_id      = var.network

  ingress {
    description     = "MySQL"
    protocol        = "tcp"
    from_port       = 3306
    to_port         = 3306
    security_groups = [var.client]
  }
}

resource "aws_db_subnet_group" "this" {
  name       = var.name
  subnet_ids = var.subnets
}

resource "aws_db_parameter_group" "this" {
  name   = "${var.name}-mysql8"
  family = "mysql8.4"

  # Every answered write is on disk, and rows can be restored to any moment.
  dynamic "parameter" {
    for_each = {
      innodb_flush_log_at_trx_commit = "1"
      sync_binlog                    = "1"
      binlog_format                  = "ROW"
      character_set_server           = "utf8mb4"
      time_zone                      = "UTC"
    }

    content {
      name  = parameter.key
      value = parameter.value
    }
  }
}

resource "aws_db_instance" "this" {
  identifier     = "${var.name}-database"
  engine         = "mysql"
  engine_version = "8.4"
  instance_class = var.instance_class

  allocated_storage     = var.storage.initial
  max_allocated_storage = var.storage.most
  storage_encrypted     = true
  kms_key_id            = var.key

  username = var.username
  password = var.password

  multi_az                        = var.replicated
  db_subnet_group_name            = aws_db_subnet_group.this.name
  vpc_security_group_ids          = [aws_security_group.database.id]
  parameter_group_name            = aws_db_parameter_group.this.name
  publicly_accessible             = false
  enabled_cloudwatch_logs_exports = ["error", "slowquery"]

  backup_retention_period = var.backup_days
  backup_window           = "03:00-04:00"
  maintenance_window      = "sun:04:00-sun:05:00"
  copy_tags_to_snapshot   = true

  auto_minor_version_upgrade = true

  deletion_protection       = true
  skip_final_snapshot       = false
  final_snapshot_identifier = "${var.name}-database-final-snapshot"
}
