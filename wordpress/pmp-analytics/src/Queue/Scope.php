<?php

declare(strict_types=1);

namespace PMP\Analytics\Queue;

/**
 * What the mesh may believe of a message: the scope of the token it is delivered with.
 */
enum Scope: string
{
    /** The shop says so. */
    case Site = 'site';
    /** A browser says so: its e-mail address is no evidence of who somebody is. */
    case Track = 'track';
}
