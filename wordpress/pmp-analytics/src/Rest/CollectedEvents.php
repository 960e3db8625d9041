<?php

declare(strict_types=1);

namespace PMP\Analytics\Rest;

use PMP\Analytics\Capture\Visit;
use PMP\Analytics\Payload\Clean;
use PMP\Analytics\Payload\EventPayload;
use PMP\Analytics\Payload\Identifier;
use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\Message;

/**
 * Events as a browser reports them, checked, with what the request itself shows beside them.
 */
final class CollectedEvents
{
    public const MAX = 50;

    private const DEPTH = 10;

    private const MAX_EVENT_BYTES = 32_768;

    /** The mesh refuses what is from tomorrow; a browser's clock may well be. */
    private const AHEAD_SECONDS = 300;

    /** What a browser may say. The rest of an event is the server's to say. */
    private const TOLD = [
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
     * @param int $user_id Who is logged in; 0 for nobody, or nobody sure.
     * @return self|null Null when the body has no events at all.
     */
    public static function of(string $body, Visit $visit, int $user_id, float $now): ?self
    {
        $told = json_decode($body, true, self::DEPTH);
        $events = is_array($told) ? $told['events'] ?? (array_is_list($told) ? $told : [$told]) : [];
        if (! is_array($events) || ! array_is_list($events) || $events === [] || count($events) > self::MAX) {
            return null;
        }
        $messages = [];
        $verdicts = [];
        foreach ($events as $event) {
            $message = self::message(is_array($event) ? $event : [], $visit, $user_id, $now);
            if ($message instanceof Message) {
                $messages[] = $message;
                $verdicts[] = ['success' => true, 'event_id' => $message->id, 'violations' => []];
            } else {
                $verdicts[] = [
                    'success' => false,
                    'event_id' => is_array($event) ? Clean::name($event['id'] ?? '') : '',
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
     * @return Message|string The field that is wrong.
     */
    private static function message(array $event, Visit $visit, int $user_id, float $now): Message|string
    {
        $type = Clean::word($event['event_type'] ?? '');
        $time = Clean::time($event['timestamp'] ?? null);
        $id = isset($event['id']) && $event['id'] !== '' ? Clean::name($event['id']) : Identifier::make($now);
        if ($type === '' || $time === null || $id === '') {
            return $type === '' ? 'event_type' : ($time === null ? 'timestamp' : 'id');
        }
        $facts = array_intersect_key($event, array_flip(self::TOLD));
        $facts['id'] = $id;
        $facts['timestamp'] = strtotime($time) > $now + self::AHEAD_SECONDS ? $now : $time;
        $facts['source'] = 'tracker';
        // Beside the event, never in it: one that is repeated after a login, or from another network, is the same event.
        $facts['context'] = Clean::only_given([
            'user_id' => $user_id > 0 ? (string) $user_id : '',
            'ip_address' => $visit->address(),
            'user_agent' => $visit->user_agent(),
            'utm_parameters' => $visit->utm(),
        ]) + ['global_privacy_control' => $visit->refuses_sharing()];
        $payload = $type === 'page_view' ? EventPayload::page_view($facts) : EventPayload::of($type, $facts);
        if (strlen((string) wp_json_encode($payload)) > self::MAX_EVENT_BYTES) {
            return 'metadata';
        }
        return new Message(Kind::Event, $id, $payload);
    }
}
