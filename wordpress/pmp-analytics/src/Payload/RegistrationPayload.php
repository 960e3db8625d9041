<?php

declare(strict_types=1);

namespace PMP\Analytics\Payload;

/**
 * Bodies of pmp.identity.v1.Registration and pmp.identity.v1.UserUpdate.
 */
final class RegistrationPayload
{
    /**
     * @param array<string, mixed> $facts The registration's own fields; `wordpress_id` or `email` is required.
     * @return array<string, mixed>
     */
    public static function of(array $facts): array
    {
        return Clean::only_given([
            // 64-bit numbers are strings in protobuf's JSON.
            'wordpress_id' => ltrim((string) max(0, (int) ($facts['wordpress_id'] ?? 0)), '0'),
            'email' => Clean::email($facts['email'] ?? ''),
            'first_name' => Clean::text($facts['first_name'] ?? '', 100),
            'last_name' => Clean::text($facts['last_name'] ?? '', 100),
            'registration_date' => Clean::time($facts['registration_date'] ?? null),
            'session_id' => Clean::id($facts['session_id'] ?? ''),
            'anonymous_id' => Clean::id($facts['anonymous_id'] ?? ''),
            'utm_parameters' => Clean::utm($facts['utm_parameters'] ?? []),
            'preferences' => Clean::metadata($facts['preferences'] ?? []),
            'email_subscriptions' => self::subscriptions((array) ($facts['email_subscriptions'] ?? [])),
            'timestamp' => Clean::time($facts['timestamp'] ?? null),
            // Sent only if true; missing means false.
            'historical' => ($facts['historical'] ?? false) === true ? true : null,
        ]);
    }

    /**
     * @param array<string, mixed> $facts The update's own fields; `updated_at` is required. Missing fields stay unchanged; a
     *     preference of null is removed.
     * @return array<string, mixed>
     */
    public static function profile(array $facts): array
    {
        $preferences = (array) ($facts['preferences'] ?? []);
        $removed = array_filter($preferences, static fn (mixed $preference): bool => $preference === null);
        return Clean::only_given([
            'email' => Clean::email($facts['email'] ?? ''),
            'first_name' => Clean::text($facts['first_name'] ?? '', 100),
            'last_name' => Clean::text($facts['last_name'] ?? '', 100),
            'preferences' => Clean::metadata($preferences) + $removed,
            'email_subscriptions' => self::subscriptions((array) ($facts['email_subscriptions'] ?? [])),
            'last_login' => Clean::time($facts['last_login'] ?? null),
            'updated_at' => Clean::time($facts['updated_at'] ?? null),
        ]);
    }

    /**
     * @param array<mixed> $subscriptions
     * @return list<array<string, mixed>>
     */
    private static function subscriptions(array $subscriptions): array
    {
        $kept = [];
        foreach (array_slice($subscriptions, 0, 50) as $subscription) {
            $list = is_array($subscription) ? Clean::word($subscription['list'] ?? '') : '';
            if ($list !== '') {
                $kept[] = ['list' => $list, 'subscribed' => ! empty($subscription['subscribed'])]
                    + Clean::only_given(['changed_at' => Clean::time($subscription['changed_at'] ?? null)]);
            }
        }
        return $kept;
    }
}
