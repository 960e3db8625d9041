<?php

declare(strict_types=1);

namespace PMP\Analytics\Privacy;

use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\StoredMessage;
use WP_User;

/**
 * A person, by all identifiers that messages may contain: e-mail addresses, accounts, orders, and the sessions that belong to
 * one of these.
 */
final class Person
{
    /** @var array<string, true> Ids of sessions and browsers. */
    private array $sessions = [];

    /** @var list<string> */
    private array $orders = [];

    /** @var list<string> */
    public readonly array $emails;

    /**
     * @param list<string> $emails
     * @param list<int>    $user_ids Accounts, which may have been deleted.
     */
    public function __construct(array $emails, public readonly array $user_ids)
    {
        $this->emails = array_values(array_unique(array_map(strtolower(...), $emails)));
    }

    /**
     * The person with an e-mail address, and the account that has it.
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

    public function add_session(string $session_id): void
    {
        if ($session_id !== '') {
            $this->sessions[$session_id] = true;
        }
    }

    /**
     * Number of known sessions.
     */
    public function session_count(): int
    {
        return count($this->sessions);
    }

    /**
     * True if a message is about this person; its session then belongs to the person, too.
     */
    public function claims(StoredMessage $message): bool
    {
        $payload = (array) json_decode($message->json, true);
        $sessions = $this->sessions_of($message, $payload);
        $is_theirs = $this->is_identified_by($message, $payload)
            // A message that identifies another person is not about this one, even from the same browser.
            || ! $this->identifies_another($payload) && array_intersect_key($this->sessions, array_flip($sessions)) !== [];
        if ($is_theirs) {
            array_map($this->add_session(...), $sessions);
        }
        return $is_theirs;
    }

    /**
     * @param array<mixed> $payload
     */
    private function is_identified_by(StoredMessage $message, array $payload): bool
    {
        $is_about_user = in_array($message->kind, [Kind::Profile, Kind::Consent, Kind::Conflict], true);
        $user_ids = [$payload['user_id'] ?? '', $payload['wordpress_id'] ?? '', $is_about_user ? $message->target : ''];
        $order = $message->kind === Kind::Refund ? $message->target : $payload['order_id'] ?? '';
        return in_array(strtolower((string) ($payload['email'] ?? '')), $this->emails, true)
            || array_intersect(array_map(strval(...), $this->user_ids), $user_ids) !== []
            || in_array($order, $this->orders, true);
    }

    /**
     * @param array<mixed> $payload
     */
    private function identifies_another(array $payload): bool
    {
        return ($payload['email'] ?? '') !== '' || ($payload['user_id'] ?? '') !== '';
    }

    /**
     * @param array<mixed> $payload
     * @return list<string>
     */
    private function sessions_of(StoredMessage $message, array $payload): array
    {
        $session_id = $message->kind === Kind::Consent ? substr($message->target, strlen('session:')) : $payload['session_id'] ?? '';
        $ids = [$session_id, $payload['anonymous_id'] ?? '', $payload['metadata']['visitor_id'] ?? ''];
        return array_values(array_filter($ids, is_string(...)));
    }
}
