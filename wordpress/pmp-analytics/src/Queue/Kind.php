<?php

declare(strict_types=1);

namespace PMP\Analytics\Queue;

/**
 * What a message tells the mesh, and by which call.
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

    public function method(): string
    {
        return match ($this) {
            self::Profile => 'PATCH',
            self::Consent => 'PUT',
            default => 'POST',
        };
    }

    /**
     * @param string $target The person or order that the call is about, where its address names one.
     */
    public function path(string $target = ''): string
    {
        // A colon may stand in a path, and the gateway's router does not decode it.
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
        };
    }

    /**
     * Visits are many, and one more or less is no harm: they give way when the queue is full.
     */
    public function gives_way(): bool
    {
        return $this === self::Event || $this === self::Touchpoint;
    }
}
