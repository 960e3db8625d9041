<?php

declare(strict_types=1);

namespace PMP\Analytics\Payload;

/**
 * Bodies of pmp.ingestion.v1.Event.
 *
 * Facts are the event's own fields; `id` and `timestamp` are required.
 */
final class EventPayload
{
    /**
     * A page view with all fields of the schema, including empty ones.
     *
     * @param array<string, mixed> $facts
     * @return array<string, mixed>
     */
    public static function page_view(array $facts): array
    {
        $fields = self::fields('page_view', $facts);
        $schema = [
            'id' => '',
            'timestamp' => '',
            'event_type' => '',
            'user_id' => null,
            'session_id' => '',
            'page_url' => '',
            'page_title' => '',
            'referrer' => '',
            // An object even if empty: PHP encodes an empty array as a JSON list, which the mesh reports as a fault.
            'utm_parameters' => (object) [],
            'user_agent' => '',
            'ip_address' => '',
            'metadata' => (object) [],
        ];
        return array_merge($schema, $fields);
    }

    /**
     * Any other event, with only the fields that have a value.
     *
     * @param array<string, mixed> $facts
     * @return array<string, mixed>
     */
    public static function of(string $type, array $facts): array
    {
        return self::fields($type, $facts);
    }

    /**
     * @param array<string, mixed> $facts
     * @return array<string, mixed>
     */
    private static function fields(string $type, array $facts): array
    {
        return Clean::only_given([
            'id' => Clean::id($facts['id'] ?? ''),
            'timestamp' => Clean::time($facts['timestamp'] ?? null),
            'event_type' => Clean::word($type),
            'event_category' => Clean::text($facts['event_category'] ?? '', 50),
            'user_id' => Clean::id($facts['user_id'] ?? ''),
            'session_id' => Clean::id($facts['session_id'] ?? ''),
            'page_url' => Clean::url($facts['page_url'] ?? ''),
            'page_title' => Clean::text($facts['page_title'] ?? '', 500),
            'referrer' => Clean::url($facts['referrer'] ?? ''),
            'utm_parameters' => Clean::utm($facts['utm_parameters'] ?? []),
            'user_agent' => Clean::text($facts['user_agent'] ?? '', 1024),
            'ip_address' => Clean::address($facts['ip_address'] ?? ''),
            'metadata' => Clean::metadata($facts['metadata'] ?? []),
            'platform' => Clean::word($facts['platform'] ?? '', 50),
            'source' => Clean::text($facts['source'] ?? '', 100),
            'email' => Clean::email($facts['email'] ?? ''),
            'context' => $facts['context'] ?? null,
            // Sent only if true; missing means false.
            'global_privacy_control' => ($facts['global_privacy_control'] ?? false) === true ? true : null,
            'historical' => ($facts['historical'] ?? false) === true ? true : null,
        ]);
    }
}
