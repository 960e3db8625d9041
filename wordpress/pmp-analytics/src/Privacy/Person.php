<?php

declare(strict_types=1);

namespace PMP\Analytics\Privacy;

use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\StoredMessage;
use WP_User;

/**
 * Somebody, by all the names that messages have for them: e-mail addresses, accounts, orders, and the visits that belong
 * to one of these.
 */
final class Person
{
    /** @var array<string, true> Ids of visits and of browsers. */
    private array $visits = [];

    /** @var list<string> */
    private array $orders = [];

    /** @var list<string> */
    public readonly array $emails;

    /**
     * @param list<string> $emails
     * @param list<int>    $user_ids Accounts, which need not be there any more.
     */
    public function __construct(array $emails, public readonly array $user_ids)
    {
        $this->emails = array_values(array_unique(array_map(strtolower(...), $emails)));
    }

    /**
     * Whoever goes by an e-mail address, with the account that has it.
     */
    public static function with_email(string $email): self
    {
        $user = get_user_by('email', $email);
        return new self([$email], $user instanceof WP_User ? [$user->ID] : []);
    }

    /**
     * @param list<string> $numbers
     */
    public function ordered(array $numbers): void
    {
        $this->orders = $numbers;
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
        return in_array(strtolower((string) ($payload['email'] ?? '')), $this->emails, true)
            || array_intersect(array_map(strval(...), $this->user_ids), $user_ids) !== []
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
