# The databases and accounts of development, made with MySQL's data directory: one of the shop, one of all services of the mesh.
docker_process_sql <<SQL
CREATE DATABASE wordpress CHARACTER SET utf8mb4;
CREATE USER wordpress@'%' IDENTIFIED BY '$WORDPRESS_PASSWORD';
GRANT ALL PRIVILEGES ON wordpress.* TO wordpress@'%';
CREATE USER mesh@'%' IDENTIFIED BY '$MESH_PASSWORD';
GRANT ALL PRIVILEGES ON *.* TO mesh@'%';
SQL
