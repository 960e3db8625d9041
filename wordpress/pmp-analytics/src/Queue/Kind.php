<?php

declare(strict_types=1);

namespace PMP\Analytics\Queue;

/**
 * The kinds of messages, with the call of the mesh for each.
 */
enum Kind: string
{
    case Event = 'event';
    case Registration = 'registration';
    case Profile = 'profile';
    case Purchase = 'purchase';
    case Refund = 'refund';
    case Touchpoint = 'touchpoint';
    case Conversion = 'conversion';
    case Consent = 'consent';
    case Conflict = 'conflict';

    public function method(): string
    {
        return match ($this) {
            self::Profile => 'PATCH',
            self::Consent => 'PUT',
            default => 'POST',
        };
    }

    /**
     * @param string $target The user or order in the path, if the call has one.
     */
    public function path(string $target = ''): string
    {
        // A colon is valid in a path, and the gateway's router does not decode it.
        $target = str_replace('%3A', ':', rawurlencode($target));
        return '/api/v1/' . match ($this) {
            self::Event => 'events/batch',
            self::Registration => 'users/register',
            self::Profile => "users/{$target}",
            self::Purchase => 'purchases/track',
            self::Refund => "purchases/{$target}/refunds",
            self::Touchpoint => 'journey/touchpoint',
            self::Conversion => 'conversions/track',
            self::Consent => "users/{$target}/consent",
            self::Conflict => "users/{$target}/conflicts",
        };
    }

    /**
     * Events and touchpoints are many and expendable: they are refused first when the outbox fills up.
     */
    public function gives_way(): bool
    {
        return $this === self::Event || $this === self::Touchpoint;
    }
}
