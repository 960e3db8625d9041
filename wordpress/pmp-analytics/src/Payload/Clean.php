<?php

declare(strict_types=1);

namespace PMP\Analytics\Payload;

use DateTimeInterface;
use DateTimeZone;

/**
 * Sanitises values for the mesh's contract, so that one invalid value does not invalidate its record.
 */
final class Clean
{
    private const METADATA_BYTES = 16_000;

    private const METADATA_DEPTH = 7;

    private const ID = '/^[A-Za-z0-9._:-]{1,255}$/D';

    private const RFC_3339 = '/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/D';

    /** The range of google.protobuf.Timestamp in seconds since 1970. */
    private const YEAR_1 = -62_135_596_800;

    private const YEAR_10000 = 253_402_300_800;

    private const SECRET_PARAMETERS = '/^(key|e-?mail|pass(word)?|pwd|.*nonce|.*token|.*secret)$/i';

    /**
     * Text of limited length, without control characters and invalid UTF-8. Not escaped: that is done on output.
     */
    public static function text(mixed $value, int $length): string
    {
        $text = is_scalar($value) ? (string) $value : '';
        if (preg_match('//u', $text) !== 1) {
            // The only encoder in every PHP that drops invalid UTF-8.
            $text = (string) json_decode((string) json_encode($text, JSON_INVALID_UTF8_IGNORE));
        }
        return mb_substr(trim((string) preg_replace('/[\x00-\x1F\x7F]+/', ' ', $text)), 0, $length);
    }

    /**
     * An id that the mesh accepts; empty for anything else.
     */
    public static function id(mixed $value): string
    {
        return is_scalar($value) && preg_match(self::ID, (string) $value) === 1 ? (string) $value : '';
    }

    /**
     * A WordPress id of a user, post or order; 0 for anything else.
     */
    public static function number(mixed $value): int
    {
        return is_int($value) && $value > 0 || is_string($value) && ctype_digit($value) ? (int) $value : 0;
    }

    /**
     * A slug such as an event type, from any text: "Started checkout" is started_checkout.
     */
    public static function word(mixed $value, int $length = 100): string
    {
        $word = strtolower((string) preg_replace('/[^A-Za-z0-9._:-]+/', '_', self::text($value, $length)));
        return substr(trim($word, '_'), 0, $length);
    }

    /**
     * An e-mail address; empty for anything else.
     */
    public static function email(mixed $value): string
    {
        $email = is_string($value) ? trim($value) : '';
        return strlen($email) <= 254 && is_email($email) ? $email : '';
    }

    /**
     * RFC 3339 with zone, from such a text, a date or seconds since 1970; null for anything else, and for years outside of a
     * proto's range: WordPress stores an unknown date as 0000-00-00.
     */
    public static function time(mixed $value): ?string
    {
        if ($value instanceof DateTimeInterface) {
            $year = (int) $value->format('Y');
            return $year < 1 || $year > 9999
                ? null
                : \DateTimeImmutable::createFromInterface($value)->setTimezone(new DateTimeZone('UTC'))->format('Y-m-d\TH:i:s\Z');
        }
        if (is_int($value) || is_float($value)) {
            if (! is_finite((float) $value) || $value < self::YEAR_1 || $value >= self::YEAR_10000) {
                return null;
            }
            $seconds = floor($value);
            $fraction = sprintf('%03d', (int) (($value - $seconds) * 1000));
            return gmdate('Y-m-d\TH:i:s', (int) $seconds) . ($fraction === '000' ? '' : ".{$fraction}") . 'Z';
        }
        return is_string($value) && preg_match(self::RFC_3339, $value) === 1 && strtotime($value) !== false ? $value : null;
    }

    /**
     * The URL of a page, without sensitive parameters: order keys, nonces, tokens, e-mail addresses.
     */
    public static function url(mixed $value, int $length = 4096): string
    {
        $url = self::text($value, $length);
        [$address, $fragment] = array_pad(explode('#', $url, 2), 2, '');
        [$page, $query] = array_pad(explode('?', $address, 2), 2, '');
        $kept = array_filter(
            explode('&', $query),
            static fn (string $pair): bool => preg_match(self::SECRET_PARAMETERS, rawurldecode(explode('=', $pair)[0])) !== 1,
        );
        return $page . (implode('', $kept) === '' ? '' : '?' . implode('&', $kept)) . ($fragment === '' ? '' : "#{$fragment}");
    }

    /**
     * An IP address; empty for anything else.
     */
    public static function address(mixed $value): string
    {
        return (string) filter_var($value, FILTER_VALIDATE_IP);
    }

    /**
     * An amount of money, from a number or a numeric string; null for anything else. Never negative.
     */
    public static function money(mixed $value): ?float
    {
        return is_numeric($value) && is_finite((float) $value) ? min(max((float) $value, 0.0), 999_999_999_999.0) : null;
    }

    /**
     * Campaign parameters, with or without the prefix utm_.
     *
     * @return array<string, string>
     */
    public static function utm(mixed $value): array
    {
        $utm = [];
        foreach (['source', 'medium', 'campaign', 'term', 'content'] as $name) {
            $utm[$name] = is_array($value) ? self::text($value[$name] ?? $value["utm_{$name}"] ?? '', 255) : '';
        }
        return array_filter($utm, static fn (string $text): bool => $text !== '');
    }

    /**
     * Free-form metadata within the contract's size and depth. Entries that don't fit are dropped and `truncated` is set.
     *
     * @return array<string, mixed>
     */
    public static function metadata(mixed $value): array
    {
        $metadata = is_array($value) ? self::object($value, self::METADATA_DEPTH) : [];
        $bytes = 2;
        foreach ($metadata as $name => $entry) {
            $bytes += strlen((string) wp_json_encode([$name => $entry]));
            if ($bytes > self::METADATA_BYTES) {
                unset($metadata[$name]);
                $metadata['truncated'] = true;
            }
        }
        return $metadata;
    }

    /**
     * The fields that have a value: to the mesh a missing field is an empty one, and PHP's empty array is not an object.
     *
     * @param array<string, mixed> $fields
     * @return array<string, mixed>
     */
    public static function only_given(array $fields): array
    {
        return array_filter($fields, static fn (mixed $field): bool => ! in_array($field, [null, '', []], true));
    }

    /**
     * @param array<mixed> $values
     * @return array<string, mixed>
     */
    private static function object(array $values, int $depth): array
    {
        $object = [];
        foreach ($values as $name => $value) {
            $name = self::text($name, 100);
            if ($name !== '' && ($value = self::value($value, $depth)) !== null) {
                $object[$name] = $value;
            }
        }
        return $object;
    }

    private static function value(mixed $value, int $depth): mixed
    {
        return match (true) {
            is_bool($value), is_int($value) => $value,
            is_float($value) => is_finite($value) ? $value : null,
            is_string($value) => self::text($value, 4096),
            is_array($value) && $value !== [] && $depth > 1 => array_is_list($value)
                ? array_values(array_filter(
                    array_map(static fn (mixed $item): mixed => self::value($item, $depth - 1), $value),
                    static fn (mixed $item): bool => $item !== null,
                ))
                : self::object($value, $depth - 1),
            default => null,
        };
    }
}
