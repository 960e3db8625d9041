<?php

declare(strict_types=1);

namespace PMP\Analytics\Queue;

use wpdb;

/**
 * All SQL of the outbox. Times are milliseconds since 1970, UTC.
 *
 * The table's name consists of the site's prefix and a constant; everything else goes through prepare().
 */
final class Table
{
    private const WAITING = 'waiting';

    private const SET_ASIDE = 'set_aside';

    private readonly string $name;

    public function __construct(private readonly wpdb $database)
    {
        $this->name = $database->prefix . 'pmp_outbox';
    }

    public static function of_this_site(): self
    {
        global $wpdb;
        return new self($wpdb);
    }

    /**
     * Creates or updates the table. Needs wp-admin/includes/upgrade.php.
     */
    public function create(): void
    {
        $name = 'varchar(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL';
        dbDelta(
            "CREATE TABLE {$this->name} (
  id bigint(20) unsigned NOT NULL AUTO_INCREMENT,
  kind varchar(20) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  message_id {$name},
  target {$name} DEFAULT '',
  scope varchar(10) NOT NULL DEFAULT 'site',
  priority tinyint(3) unsigned NOT NULL,
  status varchar(10) NOT NULL DEFAULT 'waiting',
  attempts smallint(5) unsigned NOT NULL DEFAULT 0,
  available_at bigint(20) unsigned NOT NULL,
  created_at bigint(20) unsigned NOT NULL,
  bytes int(10) unsigned NOT NULL,
  reason varchar(500) NOT NULL DEFAULT '',
  payload longblob NOT NULL,
  PRIMARY KEY  (id),
  UNIQUE KEY message (kind,message_id),
  KEY due (status,priority,id),
  KEY age (status,id)
) {$this->database->get_charset_collate()};"
        );
    }

    public function drop(): void
    {
        $this->database->query("DROP TABLE IF EXISTS {$this->name}");
    }

    /**
     * Adds rows in one statement; existing ones stay unchanged.
     *
     * @param non-empty-list<array{
     *     kind: string, id: string, target: string, priority: int, bytes: int, sealed: string,
     * }> $rows
     * @return bool False if the database failed.
     */
    public function insert(array $rows, int $now): bool
    {
        $values = [];
        foreach ($rows as $row) {
            // Hexadecimal, since wpdb would check binary data for invalid characters.
            $values[] = $this->database->prepare(
                '(%s, %s, %s, %d, %d, %d, %d, UNHEX(%s))',
                $row['kind'],
                $row['id'],
                $row['target'],
                $row['priority'],
                $now,
                $now,
                $row['bytes'],
                bin2hex($row['sealed']),
            );
        }
        // Not INSERT IGNORE, which would also ignore values that don't fit.
        return $this->run(
            "INSERT INTO {$this->name} (kind, message_id, target, priority, available_at, created_at, bytes, payload)
            VALUES " . implode(', ', $values) . ' ON DUPLICATE KEY UPDATE id = id'
        ) !== false;
    }

    /**
     * Messages that are due, up to the limits: by priority, then the oldest first.
     *
     * @return list<array<string, string>>
     */
    public function due(int $now, int $limit, int $max_bytes): array
    {
        $sizes = $this->database->get_results(
            $this->database->prepare(
                "SELECT id, bytes FROM {$this->name} WHERE status = %s AND available_at <= %d
                ORDER BY priority, id LIMIT %d",
                self::WAITING,
                $now,
                $limit,
            ),
            ARRAY_A,
        );
        $numbers = [];
        $bytes = 0;
        foreach ((array) $sizes as $row) {
            $bytes += (int) $row['bytes'];
            if ($numbers !== [] && $bytes > $max_bytes) {
                break;
            }
            $numbers[] = (int) $row['id'];
        }
        if ($numbers === []) {
            return [];
        }
        return (array) $this->database->get_results(
            "SELECT id, kind, message_id, target, scope, attempts, payload FROM {$this->name}
            WHERE id IN ({$this->list_of($numbers)}) ORDER BY priority, id",
            ARRAY_A,
        );
    }

    /**
     * Rows of any status after a number.
     *
     * @return list<array<string, string>>
     */
    public function after(int $number, int $limit): array
    {
        return (array) $this->database->get_results(
            $this->database->prepare(
                "SELECT id, kind, message_id, target, scope, attempts, payload FROM {$this->name} WHERE id > %d ORDER BY id LIMIT %d",
                $number,
                $limit,
            ),
            ARRAY_A,
        );
    }

    /**
     * Replaces the payload of a row.
     */
    public function replace(int $number, string $sealed, int $bytes): void
    {
        $this->run($this->database->prepare(
            "UPDATE {$this->name} SET payload = UNHEX(%s), bytes = %d WHERE id = %d",
            bin2hex($sealed),
            $bytes,
            $number,
        ));
    }

    public function has_due(int $now): bool
    {
        return (bool) $this->database->get_var(
            $this->database->prepare(
                "SELECT 1 FROM {$this->name} WHERE status = %s AND available_at <= %d LIMIT 1",
                self::WAITING,
                $now,
            )
        );
    }

    /**
     * @param non-empty-list<int> $numbers
     */
    public function delete(array $numbers): void
    {
        $this->run("DELETE FROM {$this->name} WHERE id IN ({$this->list_of($numbers)})");
    }

    /**
     * @param non-empty-list<int> $numbers
     */
    public function postpone(array $numbers, int $until): void
    {
        $this->run($this->database->prepare(
            "UPDATE {$this->name} SET attempts = LEAST(attempts + 1, 1000), available_at = %d
            WHERE id IN ({$this->list_of($numbers)})",
            $until,
        ));
    }

    public function set_aside(int $number, string $reason): void
    {
        $this->run($this->database->prepare(
            "UPDATE {$this->name} SET status = %s, reason = %s WHERE id = %d",
            self::SET_ASIDE,
            mb_substr($reason, 0, 500),
            $number,
        ));
    }

    /**
     * Sends messages that were set aside again.
     */
    public function requeue(int $now): void
    {
        $this->run($this->database->prepare(
            "UPDATE {$this->name} SET status = %s, reason = '', attempts = 0, available_at = %d WHERE status = %s",
            self::WAITING,
            $now,
            self::SET_ASIDE,
        ));
    }

    public function forget_set_aside(int $before): void
    {
        $this->run($this->database->prepare(
            "DELETE FROM {$this->name} WHERE status = %s AND created_at < %d LIMIT 1000",
            self::SET_ASIDE,
            $before,
        ));
    }

    /**
     * @return list<array{kind: string, message_id: string, reason: string}> Newest first.
     */
    public function reasons(int $limit): array
    {
        return (array) $this->database->get_results(
            $this->database->prepare(
                "SELECT kind, message_id, reason FROM {$this->name} WHERE status = %s ORDER BY id DESC LIMIT %d",
                self::SET_ASIDE,
                $limit,
            ),
            ARRAY_A,
        );
    }

    /**
     * Messages about an order that were not delivered yet, oldest first.
     *
     * @param string $prefix Prefix of the ids of the order's reports.
     * @return list<array{kind: string, status: string, reason: string, created_at: string}> Status is waiting or set_aside.
     */
    public function about_order(string $order_id, string $prefix): array
    {
        return (array) $this->database->get_results(
            $this->database->prepare(
                "SELECT kind, status, reason, created_at FROM {$this->name}
                WHERE (kind = %s AND message_id LIKE %s) OR (kind = %s AND target = %s) ORDER BY id LIMIT 50",
                Kind::Purchase->value,
                $this->database->esc_like($prefix) . '%',
                Kind::Refund->value,
                $order_id,
            ),
            ARRAY_A,
        );
    }

    /**
     * True if more than this many are waiting. Counts only if the range of ids is that large: InnoDB counts by reading.
     */
    public function holds_more_than(int $limit): bool
    {
        $span = $this->quietly(fn (): ?string => $this->database->get_var(
            $this->database->prepare(
                "SELECT MAX(id) - MIN(id) + 1 FROM {$this->name} WHERE status = %s",
                self::WAITING,
            )
        ));
        return (int) $span >= $limit && $this->count(self::WAITING) >= $limit;
    }

    public function state(int $now): State
    {
        return new State($this->count(self::WAITING), $this->count(self::SET_ASIDE), $this->oldest_age($now));
    }

    /**
     * Age of the oldest waiting message in seconds; 0 without any.
     */
    public function oldest_age(int $now): float
    {
        $oldest = $this->database->get_var(
            $this->database->prepare(
                "SELECT created_at FROM {$this->name} WHERE status = %s ORDER BY id LIMIT 1",
                self::WAITING,
            )
        );
        return $oldest === null ? 0.0 : max(0, $now - (int) $oldest) / 1000;
    }

    private function count(string $status): int
    {
        return (int) $this->database->get_var(
            $this->database->prepare("SELECT COUNT(*) FROM {$this->name} WHERE status = %s", $status)
        );
    }

    /**
     * @param list<int> $numbers
     */
    private function list_of(array $numbers): string
    {
        return implode(',', array_map('intval', $numbers));
    }

    private function run(string $query): int|bool
    {
        return $this->quietly(fn (): int|bool => $this->database->query($query));
    }

    /**
     * Without printing errors: a failing outbox must not show in the checkout.
     *
     * @template T
     * @param callable(): T $work
     * @return T
     */
    private function quietly(callable $work): mixed
    {
        $shown = $this->database->suppress_errors(true);
        $result = $work();
        $this->database->suppress_errors($shown);
        return $result;
    }
}
