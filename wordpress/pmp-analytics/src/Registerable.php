<?php

declare(strict_types=1);

namespace PMP\Analytics;

/**
 * A part of the plugin that listens to WordPress. Only register() adds hooks: making an object changes nothing.
 */
interface Registerable
{
    public function register(): void;
}
