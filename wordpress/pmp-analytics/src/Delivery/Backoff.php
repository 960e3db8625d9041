<?php

declare(strict_types=1);

namespace PMP\Analytics\Delivery;

/**
 * The delay after consecutive failures.
 */
final class Backoff
{
    private const SOON = [1.0, 2.0, 4.0];

    private const LATER_SECONDS = 30.0;

    private const LONGEST_SECONDS = 900.0;

    /**
     * 1 s, 2 s, 4 s; then 30 s doubling up to 15 minutes, each shortened by up to a half so that the shops of one mesh
     * don't retry all at once.
     *
     * @param int   $failures At least 1.
     * @param float $random   From 0 to 1.
     * @return float Seconds.
     */
    public static function seconds(int $failures, float $random): float
    {
        if ($failures <= count(self::SOON)) {
            return self::SOON[max(0, $failures - 1)];
        }
        $doublings = min($failures - count(self::SOON) - 1, 10);
        return min(self::LATER_SECONDS * 2 ** $doublings, self::LONGEST_SECONDS) * (1 - $random / 2);
    }
}
