<?php

declare(strict_types=1);

namespace PMP\Analytics\Payload;

/**
 * Bodies of pmp.gdpr.v1.Consent.
 */
final class ConsentPayload
{
    public const PURPOSES = ['analytics_tracking', 'marketing_emails', 'third_party_sharing'];

    private const POLICY_VERSION = '/^[A-Za-z0-9._:-]{0,100}$/D';

    private const SOURCES = ['banner', 'form', 'import', 'api'];

    /**
     * @param array<string, mixed> $facts The consent's own fields; one of the purposes `analytics_tracking`, `marketing_emails` and
     *     `third_party_sharing` is required.
     * @return array<string, mixed>
     */
    public static function of(array $facts): array
    {
        $version = (string) ($facts['policy_version'] ?? '');
        $choices = array_map(static fn (string $purpose): ?bool => self::choice($facts[$purpose] ?? null), self::PURPOSES);
        return Clean::only_given([
            ...array_combine(self::PURPOSES, $choices),
            'policy_version' => preg_match(self::POLICY_VERSION, $version) === 1 ? $version : '',
            'source' => in_array($facts['source'] ?? '', self::SOURCES, true) ? $facts['source'] : '',
            'timestamp' => Clean::time($facts['timestamp'] ?? null),
        ]);
    }

    private static function choice(mixed $value): ?bool
    {
        return is_bool($value) ? $value : null;
    }
}
