<?php

declare(strict_types=1);

namespace PMP\Analytics\Delivery;

use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\StoredMessage;

/**
 * Decides which messages travel together: events by the hundred, everything else alone and in its order.
 */
final class Batches
{
    public const MAX_EVENTS = 500;

    /** The gateway takes 1 MiB; the brackets and commas around the events need some of it. */
    public const MAX_BYTES = (1 << 20) - 4096;

    /** So many failures are bad luck; after more of them, one of the batch may be the reason. */
    private const TRUSTED_FAILURES = 3;

    /**
     * @param list<StoredMessage> $messages
     * @return list<non-empty-list<StoredMessage>> Orders and people first: they matter more than visits.
     */
    public static function of(array $messages): array
    {
        $alone = [];
        $together = [];
        foreach ($messages as $message) {
            if ($message->kind !== Kind::Event) {
                $alone[] = [$message];
                continue;
            }
            $together[self::size($message->attempts)][] = $message;
        }
        foreach ($together as $size => $events) {
            array_push($alone, ...self::cut($events, $size));
        }
        return $alone;
    }

    /**
     * Smaller and smaller after each failure, so that an event on which the mesh fails soon travels alone.
     */
    private static function size(int $attempts): int
    {
        return max(1, self::MAX_EVENTS >> 2 * max(0, $attempts - self::TRUSTED_FAILURES));
    }

    /**
     * @param non-empty-list<StoredMessage> $events
     * @return list<non-empty-list<StoredMessage>>
     */
    private static function cut(array $events, int $size): array
    {
        $batches = [];
        $batch = [];
        $bytes = 0;
        foreach ($events as $event) {
            if ($batch !== [] && (count($batch) >= $size || $bytes + strlen($event->json) + 1 > self::MAX_BYTES)) {
                $batches[] = $batch;
                $batch = [];
                $bytes = 0;
            }
            $batch[] = $event;
            $bytes += strlen($event->json) + 1;
        }
        $batches[] = $batch;
        return $batches;
    }
}
