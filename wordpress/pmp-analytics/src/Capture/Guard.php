<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

use Throwable;

/**
 * Contains the plugin's failures: unexpected data of another plugin must not break the shop's checkout.
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
        // Without the message, which may quote a visitor's input.
        error_log(sprintf('pmp-analytics: %s in %s:%d', $error::class, basename($error->getFile()), $error->getLine()));
    }
}
