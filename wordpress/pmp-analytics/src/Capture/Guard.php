<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

use Throwable;

/**
 * Keeps our failures ours: an order that another plugin made odd must not cost the shop its checkout.
 */
final class Guard
{
    /**
     * @param callable(): void $work
     */
    public static function attempt(callable $work): void
    {
        try {
            $work();
        } catch (Throwable $error) {
            self::report($error);
        }
    }

    public static function report(Throwable $error): void
    {
        // Not the message: it may quote what a visitor typed.
        error_log(sprintf('pmp-analytics: %s in %s:%d', $error::class, basename($error->getFile()), $error->getLine()));
    }
}
