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

    public function method(): string
    {
        return $this === self::Profile ? 'PATCH' : 'POST';
    }

    /**
     * @param string $target The person or order that the call is about, where its address names one.
     */
    public function path(string $target = ''): string
    {
        $target = rawurlencode($target);
        return '/api/v1/' . match ($this) {
            self::Event => 'events/batch',
            self::Registration => 'users/register',
            self::Profile => "users/{$target}",
            self::Purchase => 'purchases/track',
            self::Refund => "purchases/{$target}/refunds",
            self::Touchpoint => 'journey/touchpoint',
            self::Conversion => 'conversions/track',
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
