<?php

declare(strict_types=1);

namespace PMP\Analytics\Delivery;

use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\StoredMessage;

/**
 * Groups messages into calls: events in batches, everything else alone and in order.
 */
final class Batches
{
    public const MAX_EVENTS = 500;

    /** The gateway takes 1 MiB; the brackets and commas around the events need some of it. */
    public const MAX_BYTES = (1 << 20) - 4096;

    /** Up to this many failures are accidental; after more, one event of the batch may be the cause. */
    private const TRUSTED_FAILURES = 3;

    /**
     * @param list<StoredMessage> $messages
     * @return list<non-empty-list<StoredMessage>> Orders and users first: they matter more than events.
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
     * Shrinks with each failure, so that an event that the mesh fails on is soon sent alone.
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
