<?php

declare(strict_types=1);

namespace PMP\Analytics\Privacy;

use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\StoredMessage;

/**
 * Somebody, by all the names that messages have for them: an e-mail address, an account, orders, and the visits that belong
 * to one of these.
 */
final class Person
{
    /** @var array<string, true> Ids of visits and of browsers. */
    private array $visits = [];

    private readonly string $email;

    /**
     * @param int         $user_id 0 for somebody without an account.
     * @param list<string> $orders Numbers of orders.
     */
    public function __construct(string $email, private readonly int $user_id, private readonly array $orders)
    {
        $this->email = strtolower($email);
    }

    public function visited(string $session_id): void
    {
        if ($session_id !== '') {
            $this->visits[$session_id] = true;
        }
    }

    /**
     * How many visits are known.
     */
    public function visits(): int
    {
        return count($this->visits);
    }

    /**
     * True for what is told of this person; its visit is this person's from then on.
     */
    public function claims(StoredMessage $message): bool
    {
        $payload = (array) json_decode($message->json, true);
        $visits = $this->visits_of($message, $payload);
        $is_theirs = $this->is_named_by($message, $payload)
            // What names somebody else is theirs, though it happened in the same browser.
            || ! $this->names_another($payload) && array_intersect_key($this->visits, array_flip($visits)) !== [];
        if ($is_theirs) {
            array_map($this->visited(...), $visits);
        }
        return $is_theirs;
    }

    /**
     * @param array<mixed> $payload
     */
    private function is_named_by(StoredMessage $message, array $payload): bool
    {
        $user_ids = [$payload['user_id'] ?? '', $payload['wordpress_id'] ?? '', $message->kind === Kind::Profile ? $message->target : ''];
        $order = $message->kind === Kind::Refund ? $message->target : $payload['order_id'] ?? '';
        return strtolower((string) ($payload['email'] ?? '')) === $this->email
            || $this->user_id > 0 && in_array((string) $this->user_id, $user_ids, true)
            || in_array($order, $this->orders, true);
    }

    /**
     * @param array<mixed> $payload
     */
    private function names_another(array $payload): bool
    {
        return ($payload['email'] ?? '') !== '' || ($payload['user_id'] ?? '') !== '';
    }

    /**
     * @param array<mixed> $payload
     * @return list<string>
     */
    private function visits_of(StoredMessage $message, array $payload): array
    {
        $told = $message->kind === Kind::Consent ? substr($message->target, strlen('session:')) : $payload['session_id'] ?? '';
        $ids = [$told, $payload['anonymous_id'] ?? '', $payload['metadata']['visitor_id'] ?? ''];
        return array_values(array_filter($ids, is_string(...)));
    }
}
