<?php

declare(strict_types=1);

namespace PMP\Analytics\Sync;

/**
 * Times in microseconds since 1970, as the mesh compares them. Those of this site are whole milliseconds.
 */
final class Moment
{
    private const SECOND = 1_000_000;

    private const MILLISECOND = 1_000;

    /**
     * @param float $seconds Since 1970.
     */
    public static function of(float $seconds): int
    {
        return (int) floor($seconds * 1_000) * self::MILLISECOND;
    }

    /**
     * The time itself, or the first whole millisecond after another one that is not earlier.
     */
    public static function after(int $now, int $other): int
    {
        return $now > $other ? $now : (intdiv($other, self::MILLISECOND) + 1) * self::MILLISECOND;
    }

    /**
     * RFC 3339.
     */
    public static function text(int $time): string
    {
        $milliseconds = intdiv($time % self::SECOND, self::MILLISECOND);
        return gmdate('Y-m-d\TH:i:s', intdiv($time, self::SECOND)) . sprintf('.%03dZ', $milliseconds);
    }
}
