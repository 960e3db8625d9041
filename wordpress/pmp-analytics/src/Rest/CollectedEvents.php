<?php

declare(strict_types=1);

namespace PMP\Analytics\Rest;

use PMP\Analytics\Capture\Visitor;
use PMP\Analytics\Payload\Clean;
use PMP\Analytics\Payload\EventPayload;
use PMP\Analytics\Payload\Uuid;
use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\Message;

/**
 * Events reported by a browser, validated, with the facts of the request as their context.
 */
final class CollectedEvents
{
    public const MAX = 50;

    private const DEPTH = 10;

    private const MAX_EVENT_BYTES = 32_768;

    /** The mesh refuses events from the future, and browsers' clocks may be ahead. */
    private const AHEAD_SECONDS = 300;

    /** The fields that a browser may set. All others are set by the server. */
    private const FIELDS = [
        'id', 'timestamp', 'event_type', 'event_category', 'session_id', 'page_url', 'page_title', 'referrer', 'utm_parameters',
        'metadata', 'email',
    ];

    /**
     * @param list<Message> $messages
     * @param list<array{success: bool, event_id: string, violations: list<array{field: string, description: string}>}> $verdicts
     *     One for each event of the request, in its order.
     */
    private function __construct(public readonly array $messages, public readonly array $verdicts)
    {
    }

    /**
     * @param int $user_id The logged-in user; 0 if there is none or it is uncertain.
     * @return self|null Null if the body has no events.
     */
    public static function of(string $body, Visitor $visitor, int $user_id, float $now): ?self
    {
        $data = json_decode($body, true, self::DEPTH);
        $events = is_array($data) ? $data['events'] ?? (array_is_list($data) ? $data : [$data]) : [];
        if (! is_array($events) || ! array_is_list($events) || $events === [] || count($events) > self::MAX) {
            return null;
        }
        $messages = [];
        $verdicts = [];
        foreach ($events as $event) {
            $message = self::message(is_array($event) ? $event : [], $visitor, $user_id, $now);
            if ($message instanceof Message) {
                $messages[] = $message;
                $verdicts[] = ['success' => true, 'event_id' => $message->id, 'violations' => []];
            } else {
                $verdicts[] = [
                    'success' => false,
                    'event_id' => is_array($event) ? Clean::id($event['id'] ?? '') : '',
                    'violations' => [['field' => $message, 'description' => 'is missing or malformed']],
                ];
            }
        }
        return new self($messages, $verdicts);
    }

    /**
     * @param list<array{success: bool, event_id: string, violations: list<array{field: string, description: string}>}> $verdicts
     * @return list<array{success: bool, event_id: string, violations: list<array{field: string, description: string}>}>
     */
    public static function accept_all(array $verdicts): array
    {
        return array_map(static fn (array $verdict): array => ['success' => true, 'violations' => []] + $verdict, $verdicts);
    }

    /**
     * @param array<string, mixed> $event
     * @return Message|string The name of the invalid field.
     */
    private static function message(array $event, Visitor $visitor, int $user_id, float $now): Message|string
    {
        $type = Clean::word($event['event_type'] ?? '');
        $time = Clean::time($event['timestamp'] ?? null);
        $id = isset($event['id']) && $event['id'] !== '' ? Clean::id($event['id']) : Uuid::make($now);
        if ($type === '' || $time === null || $id === '') {
            return $type === '' ? 'event_type' : ($time === null ? 'timestamp' : 'id');
        }
        $facts = array_intersect_key($event, array_flip(self::FIELDS));
        $facts['id'] = $id;
        $facts['timestamp'] = strtotime($time) > $now + self::AHEAD_SECONDS ? $now : $time;
        $facts['source'] = 'tracker';
        // Next to the event, not in it: if it is repeated after a login, or from another network, it is the same event.
        $facts['context'] = Clean::only_given([
            'user_id' => $user_id > 0 ? (string) $user_id : '',
            'ip_address' => $visitor->address(),
            'user_agent' => $visitor->user_agent(),
            'utm_parameters' => $visitor->utm(),
        ]) + $visitor->tags() + ['global_privacy_control' => $visitor->refuses_sharing()];
        $payload = $type === 'page_view' ? EventPayload::page_view($facts) : EventPayload::of($type, $facts);
        if (strlen((string) wp_json_encode($payload)) > self::MAX_EVENT_BYTES) {
            return 'metadata';
        }
        return new Message(Kind::Event, $id, $payload);
    }
}
