<?php

declare(strict_types=1);

namespace PMP\Analytics\Payload;

/**
 * Bodies of pmp.journeys.v1.Touchpoint and pmp.journeys.v1.Conversion.
 */
final class JourneyPayload
{
    private const STAGES = ['awareness', 'interest', 'consideration', 'intent', 'purchase', 'retention'];

    /**
     * @param array<string, mixed> $facts The touchpoint's own fields; `id`, `timestamp`, `action`, `touchpoint` and one of
     *     `user_id` and `session_id` are required.
     * @return array<string, mixed>
     */
    public static function touchpoint(array $facts): array
    {
        return Clean::only_given([
            'id' => Clean::id($facts['id'] ?? ''),
            'timestamp' => Clean::time($facts['timestamp'] ?? null),
            'user_id' => Clean::id($facts['user_id'] ?? ''),
            'session_id' => Clean::id($facts['session_id'] ?? ''),
            'stage' => in_array($facts['stage'] ?? '', self::STAGES, true) ? $facts['stage'] : '',
            'action' => Clean::text($facts['action'] ?? '', 100),
            'touchpoint' => Clean::text($facts['touchpoint'] ?? '', 100),
            'source' => Clean::text($facts['source'] ?? '', 100),
            'medium' => Clean::text($facts['medium'] ?? '', 100),
            'campaign' => Clean::text($facts['campaign'] ?? '', 100),
            'value' => Clean::money($facts['value'] ?? null),
            'page_url' => Clean::url($facts['page_url'] ?? ''),
            'time_spent' => min(max((int) ($facts['time_spent'] ?? 0), 0), 2_147_483_647) ?: null,
            'metadata' => Clean::metadata($facts['metadata'] ?? []),
        ]);
    }

    /**
     * @param array<string, mixed> $facts The conversion's own fields; `id`, `timestamp` and one of `user_id`, `email` and
     *     `session_id` are required.
     * @return array<string, mixed>
     */
    public static function conversion(string $type, array $facts): array
    {
        return Clean::only_given([
            'id' => Clean::id($facts['id'] ?? ''),
            'timestamp' => Clean::time($facts['timestamp'] ?? null),
            'user_id' => Clean::id($facts['user_id'] ?? ''),
            'session_id' => Clean::id($facts['session_id'] ?? ''),
            'conversion_type' => Clean::word($type),
            'value' => Clean::money($facts['value'] ?? null),
            'currency' => preg_match('/^[A-Za-z]{3}$/D', (string) ($facts['currency'] ?? '')) === 1 ? strtoupper($facts['currency']) : '',
            'email' => Clean::email($facts['email'] ?? ''),
            'source' => Clean::text($facts['source'] ?? '', 100),
            'page_url' => Clean::url($facts['page_url'] ?? ''),
            'utm_parameters' => Clean::utm($facts['utm_parameters'] ?? []),
            'metadata' => Clean::metadata($facts['metadata'] ?? []),
        ]);
    }
}
