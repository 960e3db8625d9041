<?php

declare(strict_types=1);

use PMP\Analytics\Clock;
use PMP\Analytics\Queue\Cipher;
use PMP\Analytics\Queue\Message;
use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\State;
use PMP\Analytics\Queue\StoredMessage;
use PMP\Analytics\Queue\Table;
use PMP\Analytics\Queue\Unreadable;

/**
 * The durable outbox: each message is a row of the site's own database, written in the request that records it, and stays until
 * the mesh has confirmed it. Nothing here calls the network.
 */
class PMP_Event_Queue
{
    private const KEPT_ASIDE_SECONDS = 90 * 86400;

    private const PAGE = 500;

    /** Scope of browsers' events in rows from before events had a context. */
    private const BROWSERS = 'track';

    private readonly Table $table;

    private ?Cipher $cipher;

    private readonly Clock $clock;

    private readonly PMP_Config $config;

    /** @var list<Message> */
    private array $recorded = [];

    public function __construct(?PMP_Config $config = null, ?Clock $clock = null, ?Cipher $cipher = null, ?Table $table = null)
    {
        $this->config = $config ?? new PMP_Config();
        $this->clock = $clock ?? new Clock();
        // Loaded on demand: most requests record nothing, and the key takes a query.
        $this->cipher = $cipher;
        $this->table = $table ?? Table::of_this_site();
    }

    /**
     * Records messages, all or none of them. A message whose id is waiting already is not recorded again.
     *
     * @return bool False if the queue is full or the database fails: the caller continues without them.
     */
    public function add(Message ...$messages): bool
    {
        if ($messages === []) {
            return true;
        }
        $rows = array_map($this->row(...), array_values($messages));
        if ($this->is_full($messages) || ! $this->table->insert($rows, $this->now())) {
            foreach ($messages as $message) {
                /**
                 * A message was not recorded, and is lost unless it is reported again.
                 *
                 * @param Message $message
                 */
                do_action('pmp_analytics_not_recorded', $message);
            }
            return false;
        }
        array_push($this->recorded, ...array_values($messages));
        return true;
    }

    /**
     * The messages that this request recorded.
     *
     * @return list<Message>
     */
    public function recorded(): array
    {
        return $this->recorded;
    }

    /**
     * Messages that are due: first those that don't give way, then the oldest first. Unreadable messages are set aside.
     *
     * @return list<StoredMessage>
     */
    public function due(int $limit, int $max_bytes): array
    {
        do {
            $rows = $this->table->due($this->now(), $limit, $max_bytes);
            $readable = array_values(array_filter(array_map($this->stored(...), $rows)));
        } while ($rows !== [] && $readable === []);
        return $readable;
    }

    public function has_due(): bool
    {
        return $this->table->has_due($this->now());
    }

    /**
     * Removes messages that the mesh has confirmed.
     */
    public function delivered(StoredMessage ...$messages): void
    {
        if ($messages !== []) {
            $this->table->delete($this->numbers($messages));
        }
    }

    /**
     * All readable messages, waiting or set aside, in order of their numbers.
     *
     * @return Generator<int, StoredMessage>
     */
    public function everything(): Generator
    {
        $last = 0;
        while (($rows = $this->table->after($last, self::PAGE)) !== []) {
            foreach ($rows as $row) {
                $last = (int) $row['id'];
                try {
                    yield $this->opened($row);
                } catch (Unreadable) {
                    continue;
                }
            }
        }
    }

    /**
     * Deletes a message whose person objects.
     */
    public function forget(StoredMessage $message): void
    {
        $this->table->delete([$message->number]);
    }

    /**
     * Replaces the payload of a message and keeps its id.
     *
     * @param array<string, mixed> $payload
     */
    public function replace(StoredMessage $message, array $payload): void
    {
        $row = $this->row(new Message($message->kind, $message->id, $payload, $message->target));
        $this->table->replace($message->number, $row['sealed'], $row['bytes']);
    }

    /**
     * Postpones messages that the mesh failed to process.
     *
     * @param non-empty-list<StoredMessage> $messages
     */
    public function postpone(array $messages, float $seconds): void
    {
        $this->table->postpone($this->numbers($messages), $this->now() + (int) ($seconds * 1000));
    }

    /**
     * Sets aside a message that the mesh will never accept, for an administrator to look at.
     */
    public function set_aside(StoredMessage $message, string $reason): void
    {
        $this->table->set_aside($message->number, $reason);
    }

    /**
     * Sends messages that were set aside again.
     */
    public function requeue(): void
    {
        $this->table->requeue($this->now());
    }

    /**
     * Messages that were set aside, with their reasons, newest first.
     *
     * @return list<array{kind: string, message_id: string, reason: string}>
     */
    public function reasons(int $limit = 20): array
    {
        return $this->table->reasons($limit);
    }

    /**
     * Messages about a WooCommerce order that were not delivered yet, oldest first.
     *
     * @return list<array{kind: string, status: string, reason: string, created_at: string}> Status is waiting or set_aside; times are
     *     milliseconds since 1970.
     */
    public function about_order(int $order_id): array
    {
        return $this->table->about_order((string) $order_id, "wc-order-{$order_id}-");
    }

    /**
     * Age of the oldest waiting message in seconds; 0 without any.
     */
    public function oldest_age(): float
    {
        return $this->table->oldest_age($this->now());
    }

    /**
     * True if more than this many messages are waiting.
     */
    public function holds_more_than(int $messages): bool
    {
        return $this->table->holds_more_than($messages);
    }

    public function state(): State
    {
        return $this->table->state($this->now());
    }

    /**
     * Deletes messages that were set aside long ago.
     */
    public function tidy(): void
    {
        $this->table->forget_set_aside($this->now() - self::KEPT_ASIDE_SECONDS * 1000);
    }

    /**
     * @param non-empty-array<Message> $messages
     */
    private function is_full(array $messages): bool
    {
        $all_give_way = array_filter($messages, static fn (Message $message): bool => ! $message->kind->gives_way()) === [];
        return $this->table->holds_more_than($this->config->max_waiting() * ($all_give_way ? 1 : 2));
    }

    /**
     * @return array{kind: string, id: string, target: string, priority: int, bytes: int, sealed: string}
     */
    private function row(Message $message): array
    {
        $json = (string) wp_json_encode($message->payload, JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_INVALID_UTF8_SUBSTITUTE);
        return [
            'kind' => $message->kind->value,
            'id' => $message->id,
            'target' => $message->target,
            'priority' => $message->kind->gives_way() ? 1 : 0,
            'bytes' => strlen($json),
            'sealed' => $this->cipher()->seal($json, $this->binding($message->kind->value, $message->id)),
        ];
    }

    /**
     * @param array<string, string> $row
     */
    private function stored(array $row): ?StoredMessage
    {
        try {
            return $this->opened($row);
        } catch (Unreadable $error) {
            $this->table->set_aside((int) $row['id'], $error->getMessage());
            return null;
        }
    }

    /**
     * @param array<string, string> $row
     * @throws Unreadable
     */
    private function opened(array $row): StoredMessage
    {
        $kind = Kind::tryFrom($row['kind']) ?? throw new Unreadable('written by a newer version of the plugin');
        $json = $this->cipher()->open($row['payload'], $this->binding($row['kind'], $row['message_id']));
        return new StoredMessage(
            (int) $row['id'],
            $kind,
            $row['message_id'],
            $row['target'],
            $row['scope'] === self::BROWSERS ? '{"context":{},' . substr($json, 1) : $json,
            (int) $row['attempts'],
        );
    }

    private function cipher(): Cipher
    {
        return $this->cipher ??= Cipher::of_this_site();
    }

    /**
     * Authenticated with the payload, so that it can't be moved to another row.
     */
    private function binding(string $kind, string $id): string
    {
        return "{$kind}:{$id}";
    }

    /**
     * @param non-empty-array<StoredMessage> $messages
     * @return non-empty-list<int>
     */
    private function numbers(array $messages): array
    {
        return array_values(array_map(static fn (StoredMessage $message): int => $message->number, $messages));
    }

    private function now(): int
    {
        return (int) ($this->clock->now() * 1000);
    }
}
