<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use PMP\Analytics\Clock;

/**
 * Stands still until it is moved.
 */
final class MovedClock extends Clock
{
    public const START = 1_795_342_530.0; // 2026-11-22T10:15:30Z

    private static ?self $the_one = null;

    private float $now = self::START;

    /**
     * The plugin's.
     */
    public static function the_one(): self
    {
        return self::$the_one ??= new self();
    }

    public function now(): float
    {
        return $this->now;
    }

    public function wait(float $seconds): void
    {
        $this->move($seconds);
    }

    public function move(float $seconds): void
    {
        $this->now += $seconds;
    }

    public function reset(): void
    {
        $this->now = self::START;
    }
}
